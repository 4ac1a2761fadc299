"""A small model with random weights of each backbone class of KerasHub.

Most need two layers of small widths, said once for all by the names of arguments; what
is made of other models is put together by hand.
"""

import inspect
from typing import Any

LENGTH, SIDE, VOCABULARY = 16, 32, 50

# Arguments that mean the same in all classes. Rather more heads than usual, so that
# some can go; heads times their size is the hidden size, as many classes want it.
USUAL: dict[str, Any] = {
    **dict.fromkeys(["vocabulary_size", "vocab_size", "text_vocab_size"], VOCABULARY),
    **dict.fromkeys(["num_layers", "encoder_num_layers", "decoder_num_layers"], 2),
    **dict.fromkeys(["num_layers_enc", "num_layers_dec", "num_hidden_layers"], 2),
    **dict.fromkeys(["num_heads", "num_query_heads", "num_attention_heads"], 4),
    **dict.fromkeys(["encoder_num_heads", "decoder_num_heads"], 4),
    **dict.fromkeys(["encoder_num_attention_heads"], 4),
    **dict.fromkeys(["decoder_num_attention_heads"], 4),
    **dict.fromkeys(["num_key_value_heads", "encoder_num_key_value_heads"], 2),
    **dict.fromkeys(["decoder_num_key_value_heads"], 2),
    **dict.fromkeys(["head_dim", "head_size", "encoder_head_dim"], 8),
    **dict.fromkeys(["decoder_head_dim"], 8),
    **dict.fromkeys(["hidden_dim", "hidden_size", "embed_dim", "embedding_dim"], 32),
    **dict.fromkeys(["encoder_hidden_dim", "decoder_hidden_dim"], 32),
    **dict.fromkeys(["intermediate_dim", "mlp_dim", "moe_intermediate_dim"], 96),
    **dict.fromkeys(["encoder_intermediate_dim", "decoder_intermediate_dim"], 96),
    **dict.fromkeys(["expert_intermediate_dim", "shared_expert_intermediate_dim"], 96),
    **dict.fromkeys(["shared_expert_intermediate_size"], 96),
    **dict.fromkeys(["encoder_layer_types"], ["full_attention"] * 2),
    **dict.fromkeys(["decoder_layer_types"], ["full_attention"] * 2),
    "num_experts": 4,
    "top_k": 2,
    "image_shape": (SIDE, SIDE, 3),
    "image_size": SIDE,
    "patch_size": 8,
}

RESNET = {
    "input_conv_filters": [64],  # as the first stage, where 64 is a must
    "input_conv_kernel_sizes": [3],
    "stackwise_num_filters": [64, 32, 32, 32],
    "stackwise_num_blocks": [1, 1, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "basic_block",
}
MIT = {
    "layerwise_depths": [1, 1],
    "num_layers": 2,
    "layerwise_num_heads": [2, 4],
    "layerwise_sr_ratios": [2, 1],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
    "hidden_dims": [16, 32],
}
HGNET = {
    "depths": [1, 1],
    "embedding_size": 16,
    "hidden_sizes": [16, 32],
    "stem_channels": [3, 8, 16],
    "hidden_act": "relu",
    "use_learnable_affine_block": True,
    "stackwise_stage_filters": [[16, 8, 16, 1, 3, 3], [16, 8, 32, 1, 3, 3]],
    "apply_downsample": [False, True],
    "use_lightweight_conv_block": [False, True],
}
MOBILENET_V5 = {
    "stackwise_block_types": [["er"], ["uir", "uir"]],
    "stackwise_num_blocks": [1, 2],
    "stackwise_num_filters": [[16], [24, 24]],
    "stackwise_strides": [[2], [2, 1]],
    "stackwise_act_layers": [["relu"], ["relu", "relu"]],
    "stackwise_exp_ratios": [[4.0], [6.0, 6.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
    "stackwise_dw_kernel_sizes": [[0], [5, 5]],
    "stackwise_dw_start_kernel_sizes": [[0], [0, 0]],
    "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0]],
    "stackwise_pw_kernel_sizes": [[1], [0, 0]],
    "stackwise_num_heads": [[0], [0, 0]],
    "stackwise_key_dims": [[0], [0, 0]],
    "stackwise_value_dims": [[0], [0, 0]],
    "stackwise_kv_strides": [[0], [0, 0]],
    "stackwise_use_cpe": [[False], [False, False]],
    "use_msfa": False,
}
DFINE = {
    "decoder_in_channels": [32, 32],
    "encoder_hidden_dim": 32,
    "num_denoising": 0,
    "num_labels": 5,
    "hidden_dim": 32,
    "learn_initial_query": False,
    "num_queries": 10,
    "anchor_image_size": (64, 64),
    "feat_strides": [16, 32],
    "num_feature_levels": 2,
    "encoder_in_channels": [32, 32],
    "encode_proj_layers": [1],
    "num_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "num_encoder_layers": 1,
    "hidden_expansion": 0.34,
    "depth_multiplier": 0.5,
    "eval_idx": -1,
    "num_decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "decoder_n_points": [2, 2],
    "lqe_hidden_dim": 16,
    "num_lqe_layers": 2,
    "image_shape": (64, 64, 3),
    "seed": 0,
}

# What single classes need besides, or in the place of the usual.
OF_CLASS: dict[str, dict[str, Any]] = {
    "CSPNetBackbone": {
        "stem_filters": 16,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_depth": [1, 2],
        "stackwise_strides": [1, 2],
        "stackwise_num_filters": [16, 32],
        "block_type": "dark_block",
        "stage_type": "dark",
    },
    "DenseNetBackbone": {"stackwise_num_repeats": [2, 2], "growth_rate": 8},
    "DINOV2Backbone": {"position_embedding_shape": (SIDE, SIDE, 3)},
    "EfficientNetBackbone": {
        "stackwise_width_coefficients": [1.0, 1.0],
        "stackwise_depth_coefficients": [1.0, 1.0],
        "stackwise_kernel_sizes": [3, 3],
        "stackwise_num_repeats": [1, 2],
        "stackwise_input_filters": [16, 16],
        "stackwise_output_filters": [16, 24],
        "stackwise_expansion_ratios": [1, 4],
        "stackwise_squeeze_and_excite_ratios": [0.0, 0.25],
        "stackwise_strides": [1, 2],
        "stackwise_block_types": ["fused", "unfused"],
        "stackwise_force_input_filters": [0, 0],
        "stackwise_nores_option": [False, False],
        "num_features": 48,
        "input_shape": (SIDE, SIDE, 3),
    },
    "FluxBackbone": {
        "input_channels": 16,
        "mlp_ratio": 2.0,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": [2, 2, 4],
        "theta": 10_000,
        "use_bias": True,
        "image_shape": (LENGTH, 16),
        "text_shape": (8, 32),
        "image_ids_shape": (LENGTH, 3),
        "text_ids_shape": (8, 3),
        "y_shape": (32,),
    },
    "Gemma3nBackbone": {
        "text_hidden_size": 32,
        "pad_token_id": 0,
        "intermediate_size": [48, 48],
        "hidden_activation": "gelu_approximate",
        "layer_types": ["full_attention"] * 2,
        "sliding_window": 4,
        "rope_theta": 10_000.0,
        "max_position_embeddings": LENGTH,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8,
        "altup_num_inputs": 2,
        "laurel_rank": 4,
    },
    "HGNetV2Backbone": HGNET,
    "MiTBackbone": MIT,
    "MobileNetBackbone": {
        "stackwise_expansion": [[16], [24, 24]],
        "stackwise_num_blocks": [1, 2],
        "stackwise_num_filters": [[16], [24, 24]],
        "stackwise_kernel_size": [[3], [5, 5]],
        "stackwise_num_strides": [[2], [2, 1]],
        "stackwise_se_ratio": [[None], [0.25, 0.25]],
        "stackwise_activation": [["relu"], ["hard_swish", "hard_swish"]],
        "stackwise_padding": [[1], [2, 2]],
        "output_num_filters": 48,
        "depthwise_filters": 8,
        "depthwise_stride": 2,
        "depthwise_residual": False,
        "last_layer_filter": 32,
        "squeeze_and_excite": 0.5,
    },
    "MobileNetV5Backbone": MOBILENET_V5,
    "MoonshineBackbone": {"filter_dim": 32},
    "Qwen3_5Backbone": {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "partial_rotary_factor": 0.5,
    },
    "RWKV7Backbone": dict.fromkeys(
        ["gate_lora", "mv_lora", "aaa_lora", "decay_lora"], 8
    ),
    "ResNetBackbone": RESNET,
    "SmolLM3Backbone": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_layer_enabled_list": [True] * 2,
        "layer_types": ["attention"] * 2,
        "mlp_bias": False,
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": LENGTH,
        "rope_theta": 10_000.0,
        "partial_rotary_factor": 1.0,
    },
    "SwinTransformerBackbone": {
        "depths": [2, 2],
        "num_heads": [2, 4],
        "window_size": 4,
        "patch_size": 2,
        "embed_dim": 16,
    },
    "T5Gemma2Backbone": {"eoi_token_index": VOCABULARY},
    "VGGBackbone": {"stackwise_num_repeats": [2, 2], "stackwise_num_filters": [16, 32]},
    "ViTDetBackbone": {
        "global_attention_layer_indices": [1],
        "num_output_channels": 16,
        "window_size": 2,
        "patch_size": 8,
    },
    "VideoPrismBackbone": {
        "num_frames": 2,
        "num_spatial_layers": 1,
        "num_temporal_layers": 1,
        "num_auxiliary_layers": 0,
    },
    "WhisperBackbone": {
        "num_mels": 16,
        "max_encoder_sequence_length": 2 * LENGTH,
        "max_decoder_sequence_length": LENGTH,
    },
    "XceptionBackbone": {
        "stackwise_conv_filters": [[16, 16], [24, 24]],
        "stackwise_pooling": [True, False],
    },
    "PaliGemmaBackbone": {
        "vit_patch_size": 8,
        "vit_num_heads": 4,
        "vit_hidden_dim": 32,
        "vit_num_layers": 2,
        "vit_intermediate_dim": 48,
    },
}
OF_CLASS["Qwen3_5MoeBackbone"] = OF_CLASS["Qwen3_5Backbone"]
OF_CLASS["SmolLMBackbone"] = OF_CLASS["SmolLM3Backbone"]

# Sizes of axes that a model leaves open, where 16 does not do; by name of the input.
OPEN: dict[str, dict[str, tuple[int, ...]]] = {
    "MoonshineBackbone": {
        "encoder_input_values": (1024, 1),
        "encoder_padding_mask": (1024,),
    },
    "SAMBackbone": {
        "points": (1, 2),
        "labels": (1,),
        "boxes": (1, 2, 2),
        "masks": (1, SIDE, SIDE, 1),
    },
    "PARSeqBackbone": {"token_ids": (8,), "padding_mask": (8,)},  # of at most 8 letters
    "SAM3PromptableConceptBackbone": {"boxes": (1, 5), "box_labels": (1,)},
    "WhisperBackbone": {"encoder_features": (2 * LENGTH, 16)},
}


def class_names() -> list[str]:
    """List the backbone classes of KerasHub, each once."""
    import keras_hub

    found = {
        kind.__name__  # some have an older name too
        for name, kind in vars(keras_hub.models).items()
        if name.endswith("Backbone")
    }
    # These two are what others derive from, with no model of their own.
    return sorted(found - {"Backbone", "FeaturePyramidBackbone"})


def build(name: str) -> Any:
    """Build the small model of a class."""
    import keras
    import keras_hub

    keras.utils.set_random_seed(0)
    parts = PARTS[name](keras_hub) if name in PARTS else {}
    return _make(getattr(keras_hub.models, name), {**parts, **OF_CLASS.get(name, {})})


def input_shapes(name: str, model: Any) -> dict[str, tuple[int, ...]]:
    """Say at which sizes a model is read whose inputs are of any length."""
    return {
        entry.name: OPEN.get(name, {}).get(
            entry.name, tuple(size or LENGTH for size in entry.shape[1:])
        )
        for entry in model.inputs
    }


def arranged(model: Any, values: dict[str, Any]) -> Any:
    """Arrange values by input as a model takes them: by name, in a row, or alone."""
    if isinstance(model.input, dict):
        return values
    found = [values[entry.name] for entry in model.inputs]
    return found if isinstance(model.input, list) else found[0]


def _make(kind: Any, settings: dict[str, Any]) -> Any:
    """Make an object of a class: its own settings, and the usual for what is asked."""
    known = inspect.signature(kind.__init__).parameters
    usual = {
        key: value
        for key, value in USUAL.items()
        if key in known
        and (known[key].default is inspect.Parameter.empty or key == "image_shape")
    }
    lengths = {k: LENGTH for k in ("max_sequence_length",) if k in known}
    return kind(**{**usual, **lengths, **settings})


def _clip(hub: Any, family: str) -> dict[str, Any]:
    home = {**vars(hub.models), **vars(hub.layers)}
    return {
        "vision_encoder": _make(home[f"{family}VisionEncoder"], {}),
        "text_encoder": _make(home[f"{family}TextEncoder"], {}),
        **({} if family == "SigLIP" else {"projection_dim": 32}),
    }


def _pyramid(hub: Any) -> Any:
    return _make(hub.models.ResNetBackbone, RESNET)


def _dfine(hub: Any) -> dict[str, Any]:
    encoder = {
        **HGNET,
        "depths": [1] * 4,
        "hidden_sizes": [16, 16, 32, 32],
        "stackwise_stage_filters": [
            [16, 8, 16, 1, 3, 3],
            [16, 8, 16, 1, 3, 3],
            [16, 8, 32, 1, 3, 3],
            [32, 8, 32, 1, 3, 3],
        ],
        "apply_downsample": [False, True, True, True],
        "use_lightweight_conv_block": [False, False, True, True],
        "image_shape": (64, 64, 3),
        "out_features": ["stage3", "stage4"],
    }
    return {
        **DFINE,
        "backbone": hub.models.HGNetV2Backbone(**encoder),
        "out_features": ["stage3", "stage4"],
    }


def _depth_anything(hub: Any) -> dict[str, Any]:
    picture = (64, 64, 3)
    settings = {"num_layers": 4, "image_shape": picture}
    settings["position_embedding_shape"] = picture
    return {
        "image_encoder": _make(hub.models.DINOV2Backbone, settings),
        "reassemble_factors": [4, 2, 1, 0.5],
        "neck_hidden_dims": [16, 16, 32, 32],
        "fusion_hidden_dim": 16,
        "head_hidden_dim": 16,
        "head_in_index": -1,
        "feature_keys": ["stage1", "stage2", "stage3", "stage4"],
    }


def _sam(hub: Any) -> dict[str, Any]:
    encoder = {**OF_CLASS["ViTDetBackbone"], "num_output_channels": 16}
    return {
        "image_encoder": _make(hub.models.ViTDetBackbone, encoder),
        "prompt_encoder": hub.layers.SAMPromptEncoder(
            hidden_size=16,
            image_embedding_size=(4, 4),
            input_image_size=(SIDE, SIDE),
            mask_in_channels=8,
        ),
        "mask_decoder": hub.layers.SAMMaskDecoder(
            num_layers=2,
            hidden_size=16,
            intermediate_dim=32,
            num_heads=4,
            embedding_dim=16,
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=16,
        ),
    }


def _sam3(hub: Any) -> dict[str, Any]:
    layers, side = hub.layers, 56
    same = {"hidden_dim": 32, "intermediate_dim": 48, "num_heads": 4, "num_layers": 2}
    picture = {"image_shape": (side, side, 3), "patch_size": 14}
    return {
        "vision_encoder": layers.SAM3VisionEncoder(
            **same,
            **picture,
            fpn_hidden_dim=32,
            fpn_scale_factors=[4.0, 2.0, 1.0, 0.5],
            pretrain_image_shape=(28, 28, 3),
            window_size=2,
            global_attn_indexes=[1],
        ),
        "text_encoder": layers.SAM3TextEncoder(
            **same, vocabulary_size=VOCABULARY, embedding_dim=32
        ),
        "geometry_encoder": layers.SAM3GeometryEncoder(**same, roi_size=7),
        "detr_encoder": layers.SAM3DetrEncoder(**same),
        "detr_decoder": layers.SAM3DetrDecoder(**same, **picture, num_queries=10),
        "mask_decoder": layers.SAM3MaskDecoder(
            num_upsampling_stages=3, hidden_dim=32, num_heads=4
        ),
    }


def _blip2(hub: Any) -> dict[str, Any]:
    from keras_hub.src.models.blip2.blip2_custom_opt import BLIP2CustomOPT
    from keras_hub.src.models.blip2.blip2_qformer import BLIP2QFormer
    from keras_hub.src.models.blip2.blip2_vision_encoder import BLIP2VisionEncoder

    vision = {
        **dict.fromkeys(["use_patch_bias", "use_class_token"], True),
        **dict.fromkeys(["use_mha_bias", "use_mlp_bias"], True),
        "dropout_rate": 0.0,
        "layer_norm_epsilon": 1e-6,
        "initializer_range": 0.02,
    }
    former = {
        "num_query_tokens": 4,
        "vision_dim": 32,
        "cross_attention_frequency": 2,
        "dropout": 0.0,
        "layer_norm_epsilon": 1e-6,
    }
    speaking = {"num_query_tokens": 4, "dropout": 0.0, "qformer_hidden_dim": 32}
    speaking["max_sequence_length"] = 2 * LENGTH  # the queries count too
    return {
        "vision_encoder": _make(BLIP2VisionEncoder, vision),
        "qformer": _make(BLIP2QFormer, former),
        "language_model": _make(BLIP2CustomOPT, speaking),
    }


def _stable_diffusion(hub: Any) -> dict[str, Any]:
    from keras_hub.src.models.vae.vae_backbone import VAEBackbone

    vae = VAEBackbone(
        [32, 32, 32, 32],  # in 32 groups
        [1, 1, 1, 1],
        [32, 32, 32, 32],
        [1, 1, 1, 1],
        image_shape=(None, None, 3),
    )
    text = {"intermediate_output_index": 0}
    return {
        "mmdit_patch_size": 2,
        "mmdit_hidden_dim": 32,
        "mmdit_num_layers": 2,
        "mmdit_num_heads": 4,
        "mmdit_position_size": 8,
        "mmdit_qk_norm": None,
        "mmdit_dual_attention_indices": None,
        "vae": vae,
        "clip_l": _make(hub.models.CLIPTextEncoder, {**text, "name": "clip_l"}),
        "clip_g": _make(hub.models.CLIPTextEncoder, {**text, "name": "clip_g"}),
        "image_shape": (64, 64, 3),
    }


PARTS: dict[str, Any] = {
    "BASNetBackbone": lambda hub: {
        "image_encoder": hub.models.ResNetBackbone(**RESNET),
        "num_classes": 1,
        "projection_filters": 64,
        "image_shape": (64, 64, 3),
    },
    "BLIP2Backbone": _blip2,
    "CLIPBackbone": lambda hub: _clip(hub, "CLIP"),
    "DFineBackbone": _dfine,
    "DeepLabV3Backbone": lambda hub: {
        "image_encoder": _pyramid(hub),
        "projection_filters": 16,
        "low_level_feature_key": "P2",
        "spatial_pyramid_pooling_key": "P4",
        "upsampling_size": 4,
        "dilation_rates": [2, 4],
    },
    "DepthAnythingBackbone": _depth_anything,
    "MetaCLIP2Backbone": lambda hub: _clip(hub, "MetaCLIP2"),
    "PARSeqBackbone": lambda hub: {
        "image_encoder": _make(hub.models.ViTBackbone, {"use_class_token": False}),
        "max_label_length": 8,
        "decoder_hidden_dim": 32,
        "num_decoder_layers": 1,
        "num_decoder_heads": 4,
        "decoder_mlp_dim": 48,
    },
    "RetinaNetBackbone": lambda hub: {
        "image_encoder": _pyramid(hub),
        "min_level": 3,
        "max_level": 5,
        "use_p5": False,
    },
    "SAMBackbone": _sam,
    "SAM3PromptableConceptBackbone": _sam3,
    "SegFormerBackbone": lambda hub: {
        "image_encoder": _make(hub.models.MiTBackbone, MIT),
        "projection_filters": 16,
    },
    "SigLIPBackbone": lambda hub: _clip(hub, "SigLIP"),
    "StableDiffusion3Backbone": _stable_diffusion,
}
