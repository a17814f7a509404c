"""Names of ``torch.cuda`` that ``torch.remote_accelerator`` does not have, and why."""

_BY_REASON = {
    "tensors have a dtype and a device: torch.empty(..., dtype=, device=)": (
        "BFloat16Storage BFloat16Tensor BoolStorage BoolTensor ByteStorage ByteTensor "
        "CharStorage CharTensor ComplexDoubleStorage ComplexFloatStorage DoubleStorage "
        "DoubleTensor FloatStorage FloatTensor HalfStorage HalfTensor IntStorage IntTensor "
        "LongStorage LongTensor ShortStorage ShortTensor"
    ),
    (
        "a structure that repeats becomes a plan by itself, whose launches cost no "
        "message: nothing has to be captured"
    ): ("CUDAGraph graph graphs graph_pool_handle make_graphed_callables MemPool use_mem_pool"),
    "it is CUDA's library in this process, and there is no CUDA here": (
        "CudaError DEVICE_REQUIREMENT DeferredCudaCallError ExternalStream GreenContext "
        "green_contexts check_error cudaStatus cudart current_blas_handle gds get_arch_list "
        "get_gencode_flags get_stream_from_external jiterator nccl nvtx tunable "
        "PYTORCH_RELEASES_CODE_CC has_half has_magma"
    ),
    "the node owns the memory: its operator limits it, with --device DEVICE?memory=": (
        "CUDAPluggableAllocator caching_allocator_alloc caching_allocator_delete "
        "caching_allocator_enable change_current_allocator get_allocator_backend "
        "get_per_process_memory_fraction set_per_process_memory_fraction memory_snapshot"
    ),
    ("a node's sensors are its operator's: `genie-dataplane status` and /metrics tell its load"): (
        "clock_rate power_draw temperature utilization memory_usage list_gpu_processes"
    ),
    (
        "a node may be of any kind: get_device_properties tells which, and kernels are chosen there"
    ): ("get_device_capability"),
    "pinned memory is this process's own, and is not counted": (
        "host_memory_stats host_memory_stats_as_nested_dict "
        "reset_accumulated_host_memory_stats reset_peak_host_memory_stats"
    ),
    "it is deprecated in torch.cuda: the name with `reserved` is here": (
        "memory_cached max_memory_cached reset_max_memory_cached"
    ),
    "another process has a session of its own": ("ipc_collect"),
    'every look at a value is counted: genie.stats()["round_trips"]': (
        "get_sync_debug_mode set_sync_debug_mode"
    ),
    ("seeds and states are reached by manual_seed, get_rng_state and torch.Generator(device=)"): (
        "default_generators"
    ),
    "memory_stats has the same numbers": ("memory_stats_as_nested_dict"),
    "its functions are in this module itself": ("memory random streams StreamContext"),
    'use torch.amp, with device_type="remote_accelerator"': ("amp"),
    "use torch.profiler; what the node does is in genie.stats()": ("profiler"),
    "it is for CUDA's own libraries": ("sparse"),
}

#: By name.
MISSING = {name: why for why, names in _BY_REASON.items() for name in names.split()}
