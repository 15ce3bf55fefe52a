# mmpaca for CPUs: not built where it was written; please report what fails.
#
#   docker build -f docker/cpu.Dockerfile -t mmpaca:cpu .
#   docker run --rm -v "$PWD:/workspace" mmpaca:cpu predict mask_rcnn_paca published image.jpg
#
# TORCH_INDEX is the index of torch's CPU wheels, which are much smaller than those with CUDA; it is
# named in torch's installation guide. Without it this image is as large as the CUDA one.
#
#   docker build -f docker/cpu.Dockerfile --build-arg TORCH_INDEX=... -t mmpaca:cpu .
FROM python:3.11-slim-bookworm
ARG TORCH_INDEX=

# OpenCV's libraries, and a compiler for what has no wheel.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ git libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

COPY requirements/constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir 'setuptools>=77' wheel -c /tmp/constraints.txt \
    && pip install --no-cache-dir torch torchvision ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -c /tmp/constraints.txt

COPY . /opt/mmpaca
RUN pip install --no-cache-dir --no-build-isolation '/opt/mmpaca[all]' -c /tmp/constraints.txt

WORKDIR /workspace
ENTRYPOINT ["mmpaca"]
CMD ["--help"]
