# shellcheck shell=bash
# How torch uses a CPU's threads and memory; sourced by run.sh and the benches. What is set already stays.

# Threads that spin while they wait slow each other down as soon as anything else runs. A few
# microseconds are the exception: to sleep and be woken takes longer than many a matrix product.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-1000}"
# Training on a CPU frees and allocates the same large tensors at every step. Left to itself glibc
# gives each back to the kernel and has it zeroed again, which costs a third of the step's time.
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-4294967296}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-17179869184}"
export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-67108864}"
# oneDNN keeps what it compiles for 1,024 shapes of matrices, and every batch has a new number of
# tokens: memory would grow with each step. A step needs fewer than 128; both caches have to be small.
export LRU_CACHE_CAPACITY="${LRU_CACHE_CAPACITY:-128}"
export ONEDNN_PRIMITIVE_CACHE_CAPACITY="${ONEDNN_PRIMITIVE_CACHE_CAPACITY:-128}"
