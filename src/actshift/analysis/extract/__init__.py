"""From a fine-tuned checkpoint to an adapter."""

from actshift.analysis.extract.distill import distill, held_out_kl
from actshift.analysis.extract.extract import Extraction, extract
from actshift.analysis.extract.fit import config_for, fit_layers, uniform, within
from actshift.analysis.extract.oracle import oracle
from actshift.analysis.extract.report import ExtractReport, LayerFit, LayerOracle, OracleReport
from actshift.analysis.extract.tokenizers import check_same_tokenizer
from actshift.analysis.extract.twins import Twins

__all__ = [
    "ExtractReport",
    "Extraction",
    "LayerFit",
    "LayerOracle",
    "OracleReport",
    "Twins",
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
