"""Files that run the model without PixelCLIP: ONNX and torch.export, checked against the model."""

from pixelclip.export.exporter import ExportError, export_model, save_text_features

__all__ = ["ExportError", "export_model", "save_text_features"]
