# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""vLLM's own model classes and weight loaders on a CPU: what they hold after a checkpoint was
loaded.

The platform says that it is a Hopper GPU, so that the classes of that path are built. The
extension, the attention kernels and the process groups are stand-ins; post-load processing is left
out.
"""

import types

import torch
from stand_ins import Operators, StandIns

ABSENT = ["openai_harmony", "xgrammar", "llguidance"]
# There, but only with the compiled extension.
COMPILED = ["vllm.vllm_flash_attn", "vllm.vllm_flash_attn.layers",
            "vllm.vllm_flash_attn.layers.rotary"]
# Asked at import: what this build of the kernels can do.
CAPABILITIES = ["cutlass_scaled_mm_supports_block_fp8", "cutlass_scaled_mm_supports_fp8",
                "cutlass_group_gemm_supported", "cutlass_scaled_mm_supports_fp4"]


def group(size, rank):
    """A process group without processes."""
    processes = types.SimpleNamespace(size=lambda: size, rank=lambda: rank)
    return types.SimpleNamespace(
        world_size=size, rank_in_group=rank, rank=rank, local_rank=rank, ranks=list(range(size)),
        is_first_rank=True, is_last_rank=True, first_rank=0, last_rank=size - 1,
        device_group=processes, cpu_group=processes, unique_name="group", device_communicator=None,
        use_custom_op_call=False, device=torch.device("cpu"))


def _platform():
    from vllm.platforms.interface import DeviceCapability, Platform, PlatformEnum

    class Hopper(Platform):
        """What a platform says about a GPU, with tensors in host memory."""

        _enum = PlatformEnum.CUDA
        device_name = device_type = "cpu"
        dispatch_key = "CPU"
        supported_dtypes = (torch.bfloat16, torch.float16, torch.float32)

        @classmethod
        def get_device_capability(cls, device_id=0):
            return DeviceCapability(9, 0)

        @classmethod
        def get_device_name(cls, device_id=0):
            return "NVIDIA H100"

        @classmethod
        def get_device_total_memory(cls, device_id=0):
            return 80 << 30

        @classmethod
        def num_compute_units(cls, device_id=0):
            return 132

        @classmethod
        def is_pin_memory_available(cls):
            return False

        @classmethod
        def get_attn_backend_cls(cls, selected_backend, attn_selector_config, *others, **more):
            where = "mla.triton_mla.TritonMLABackend" if attn_selector_config.use_mla else \
                "triton_attn.TritonAttentionBackend"
            return f"vllm.v1.attention.backends.{where}"

    return Hopper()


class Engine:
    """Loads checkpoint directories with vLLM's classes."""

    def __init__(self):
        torch.cuda.Stream = type("Stream", (), {})
        stand_ins = StandIns(ABSENT)
        stand_ins.install()
        stand_ins.replace(*COMPILED)
        self._kernels = torch.library.Library("_C", "FRAGMENT")
        for name in CAPABILITIES:
            self._kernels.define(name + "(int capability) -> bool")
            self._kernels.impl(name, lambda capability: False, "CompositeExplicitAutograd")
        from vllm import platforms
        platforms._current_platform = _platform()
        import vllm.config
        import vllm.distributed.parallel_state
        import vllm.model_executor.model_loader.default_loader
        import vllm.model_executor.model_loader.utils
        import vllm.model_executor.models.registry
        import vllm.utils.torch_utils
        vllm.model_executor.models.registry._run_in_subprocess = lambda function: function()
        self._vllm = vllm
        torch.ops._C = torch.ops._moe_C = Operators()
        self.version = vllm.__version__

    def _set_rank(self, size, rank):
        state = self._vllm.distributed.parallel_state
        state._TP = state._EP = state._WORLD = group(size, rank)
        state._PP = state._DP = state._DCP = state._PCP = state._ETP = group(1, 0)
        state._NODE_COUNT = 1

    def build(self, folder, size, rank):
        """The model of one rank with unloaded parameters, and the function that loads them."""
        self._set_rank(size, rank)
        config, loaders = self._vllm.config, self._vllm.model_executor.model_loader
        model_config = config.ModelConfig(model=folder, tokenizer=folder, skip_tokenizer_init=True,
                                          dtype="bfloat16", enforce_eager=True, max_model_len=128)
        whole = config.VllmConfig(
            model_config=model_config, device_config=config.DeviceConfig(device="cpu"),
            parallel_config=config.ParallelConfig(tensor_parallel_size=size,
                                                  distributed_executor_backend="mp"),
            load_config=config.LoadConfig(load_format="safetensors", use_tqdm_on_load=False))
        with self._vllm.utils.torch_utils.set_default_torch_dtype(torch.bfloat16):
            model = loaders.utils.initialize_model(whole)

        def load():
            with config.set_current_vllm_config(whole):
                loaders.default_loader.DefaultModelLoader(whole.load_config).load_weights(
                    model, model_config)
        return model, load
