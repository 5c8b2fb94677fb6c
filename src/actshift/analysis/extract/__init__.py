"""From a fine-tuned checkpoint to an adapter."""

from actshift.analysis.extract.distill import distill, held_out_kl
from actshift.analysis.extract.extract import Extraction, check_same_tokenizer, extract
from actshift.analysis.extract.fit import config_for, fit_layers, uniform, within
from actshift.analysis.extract.model_pair import ModelPair
from actshift.analysis.extract.oracle import oracle
from actshift.analysis.extract.report import ExtractReport, LayerFit, LayerOracle, OracleReport

__all__ = [
    "ExtractReport",
    "Extraction",
    "LayerFit",
    "LayerOracle",
    "ModelPair",
    "OracleReport",
    "check_same_tokenizer",
    "config_for",
    "distill",
    "extract",
    "fit_layers",
    "held_out_kl",
    "oracle",
    "uniform",
    "within",
]
