# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""SGLang's own model classes and weight loaders on a CPU: what they hold after a checkpoint was
loaded.

PyTorch is made to say that there is a Hopper GPU, because the classes of a CPU pad what they load.
The kernels and the process groups are stand-ins; post-load processing is left out.
"""

import types

import torch
from stand_ins import StandIns
from vllm_engine import group

ABSENT = ["sgl_kernel", "tvm_ffi", "torchvision"]


def _pretend_hopper():
    """Before SGLang is imported: it asks once."""
    # transformers must have looked for torchvision before a stand-in answers to the name.
    import transformers.models.auto.processing_auto  # noqa: F401
    from transformers.utils import import_utils
    import_utils.is_torchvision_available()
    properties = types.SimpleNamespace(multi_processor_count=132, total_memory=80 << 30, major=9,
                                       minor=0, name="NVIDIA H100")
    cuda = torch.cuda
    cuda.is_available = lambda: True
    cuda.device_count = lambda: 8
    cuda.current_device = lambda: 0
    cuda.get_device_capability = lambda *which: (9, 0)
    cuda.get_device_name = lambda *which: properties.name
    cuda.get_device_properties = lambda *which: properties
    cuda.mem_get_info = lambda *which: (79 << 30, 80 << 30)
    cuda.set_device = lambda which: None
    cuda.synchronize = cuda.empty_cache = lambda *which: None
    cuda.Stream = type("Stream", (), {})
    cuda.Event = type("Event", (), {"__init__": lambda self, *a, **k: None})


class Engine:
    """Loads checkpoint directories with SGLang's classes."""

    def __init__(self):
        _pretend_hopper()
        StandIns(ABSENT).install()
        import sglang.srt.configs.load_config
        import sglang.srt.configs.model_config
        import sglang.srt.layers.dual_gemm
        import sglang.srt.model_loader.loader
        import sglang.srt.runtime_context
        import sglang.srt.server_args
        import sglang.version
        # Asks a kernel compiler whether two products can be fused; no weight depends on it.
        sglang.srt.layers.dual_gemm.DualGemm._select_mode = lambda *which: None
        self._srt = sglang.srt
        self.version = sglang.version.__version__

    def _set_rank(self, size, rank):
        parallel = self._srt.runtime_context.get_parallel()
        parallel.clear_stamp()
        ours, single = group(size, rank), group(1, 0)
        parallel.override_permanently(
            tp_rank=rank, moe_tp_rank=rank, attn_tp_rank=rank, launch_world_rank=rank, pp_rank=0,
            moe_ep_rank=0, moe_dp_rank=0, attn_cp_rank=0, dcp_rank=0, attn_dcp_rank=0,
            attn_dp_rank=0, dp_rank=None, world_group=ours, tp_group=ours, moe_tp_group=ours,
            attn_tp_group=ours, shared_experts_tp_group=ours, pp_group=single, moe_ep_group=single,
            moe_dp_group=single, attn_cp_group=single, dcp_group=single)

    def build(self, folder, size, rank):
        """The model of one rank with unloaded parameters, and the function that loads them."""
        arguments = self._srt.server_args.ServerArgs(
            model_path=folder, skip_tokenizer_init=True, tp_size=size, device="cuda",
            disable_cuda_graph=True, load_format="safetensors")
        arguments.resolve_once()
        self._srt.runtime_context.get_context().set_server_args(arguments)
        self._set_rank(size, rank)
        model_config = self._srt.configs.model_config.ModelConfig.from_server_args(arguments)
        loader = self._srt.model_loader.loader.DefaultModelLoader(
            self._srt.configs.load_config.LoadConfig(load_format="safetensors"))
        model = loader.initialize_model_for_startup(
            model_config=model_config, device_config=types.SimpleNamespace(device="cpu"))
        return model, lambda: model.load_weights(loader._get_all_weights(model_config, model))
