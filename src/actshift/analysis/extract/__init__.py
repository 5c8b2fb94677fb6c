"""Extract an adapter from a fine-tuned checkpoint."""

from actshift.analysis.extract.extract import UNFINISHED as UNFINISHED
from actshift.analysis.extract.extract import check_folder as check_folder
from actshift.analysis.extract.extract import check_same_tokenizer as check_same_tokenizer
from actshift.analysis.extract.extract import extract as extract
from actshift.analysis.extract.fit import distill as distill
from actshift.analysis.extract.model_pair import ModelPair as ModelPair
from actshift.analysis.extract.oracle import oracle as oracle
from actshift.analysis.extract.report import LayerFit as LayerFit
from actshift.analysis.extract.report import LayerOracle as LayerOracle
from actshift.analysis.extract.report import OracleReport as OracleReport
