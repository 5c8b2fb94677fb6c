"""Train with TRL's SFTTrainer: pass a SteeringConfig in place of a LoraConfig.

python trl_sft.py              # offline, a few seconds, on the bundled model
"""

from __future__ import annotations

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from actshift import SteeringConfig
from actshift.demo import load_base
from actshift.demo.task import make_rows


def main() -> None:
    model, tokenizer = load_base()
    trainer = SFTTrainer(
        model,
        args=SFTConfig(
            output_dir="trl-run",
            max_steps=40,
            per_device_train_batch_size=16,
            learning_rate=5e-3,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
        ),
        train_dataset=Dataset.from_list(make_rows("train", 640)),
        processing_class=tokenizer,
        peft_config=SteeringConfig(rank=8, task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model("trl-run/adapter")
    trainer.model.print_trainable_parameters()


if __name__ == "__main__":
    main()
