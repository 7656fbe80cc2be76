"""Files that run the model without PixelCLIP: ONNX and torch.export, checked before they stay."""

from pixelclip.export.exporter import ExportError, ExportReport, export_model
from pixelclip.export.text_features import save_text_features

__all__ = ["ExportError", "ExportReport", "export_model", "save_text_features"]
