"""Names that people know from other tools, and what there is here instead."""

from __future__ import annotations

_STARTED = "lmtasks run, evaluate and prepare take it, typed; a config is the same run on any number of processes"

ELSEWHERE = {
    "cache_dir": "set HF_HOME in the environment, one cache for all tools",
    "keep_linebreaks": "line breaks are always kept, without them the words of two lines run together",
    "launcher": _STARTED,
    "num_nodes": _STARTED,
    "num_processes": _STARTED,
    "pad_to_max_length": "examples are padded to the longest of their batch, no further",
    "machine_rank": "machines number themselves where they meet, at --torchrun.rdzv_endpoint",
    "node_rank": "machines number themselves where they meet, at --torchrun.rdzv_endpoint",
    "streaming": "text is read from disk in small batches anyway",
    "token": "a token on the command line is seen by everyone; set HF_TOKEN or use hf auth login",
    "use_fast_tokenizer": "the fast tokenizer is used where there is one",
}
"""Flags of ``run_mlm.py`` and ``run_clm.py`` that are not needed here, and what is instead;
and what is no option of a recipe's run, but of how it is started."""

ENGINES = {"keras": "lmtasks-keras"}
"""Packages of known engines, by their names."""

_MEETING = "torchrun.rdzv_endpoint HOST:PORT, the same on each machine"

PEERS = {
    "batch_size": "per_device_train_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "grad_accum": "gradient_accumulation_steps",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "steps": "max_steps",
    "warmup_ratio": "warmup_steps, which takes a share below 1",
    "max_seq_len": "block_size",
    "max_length": "block_size",
    "seq_len": "block_size",
    "sequence_len": "block_size",
    "cutoff_len": "block_size",
    "context_length": "block_size",
    "packing": "line_by_line, which packs no text",
    "base_model": "model",
    "model_id": "model",
    "pretrained": "model",
    "dataset_path": "train_file",
    "data_path": "train_file",
    "datasets": "data, or dataset for one",
    "text_field": "text_column",
    "dataset_text_field": "text_column",
    "val_file": "validation_file",
    "eval_file": "validation_file",
    "val_set_size": "validation_split_percentage",
    "out_dir": "output_dir",
    "output": "output_dir",
    "resume": "resume_from_checkpoint",
    "overwrite": "overwrite_output_dir",
    "lora_rank": "lora_r",
    "lora_target": "lora_target_modules",
    "adapter": "use_peft",
    "lora": "use_peft",
    "load_in_4_bit": "load_in_4bit",
    "torch_dtype": "dtype",
    "precision": "dtype for the weights, bf16 for what is computed",
    "wandb": "report_to wandb",
    "wandb_project": "report_to wandb, with WANDB_PROJECT in the environment",
    "mask_prob": "mlm_probability",
    "whole_word_mask": "mask_unit word",
    "wwm": "mask_unit word",
    "attn_impl": "attn_implementation",
    "flash_attention": "attn_implementation",
    **dict.fromkeys(("nproc_per_node", "nproc", "num_gpus", "gpus", "n_gpus", "devices"), "num_processes"),
    **dict.fromkeys(("gpus_per_node", "ngpus", "multi_gpu", "num_proc_per_node"), "num_processes"),
    **dict.fromkeys(("nnodes", "num_machines", "nodes", "n_nodes"), "num_nodes"),
    **dict.fromkeys(("master_addr", "master_port", "main_process_ip", "main_process_port"), _MEETING),
    **dict.fromkeys(("rdzv_endpoint", "rdzv_backend"), _MEETING),
    **{name: f"torchrun.{name}" for name in ("max_restarts", "rdzv_id", "local_addr")},
    **{name: f"slurm.{name}, with lmtasks-slurm" for name in ("partition", "sbatch")},
}
"""Names that other tools have for options, and those that they have here."""
