from tf_spline_prune.litert._attachments import (
    attach as attach,
    read_attachments as read_attachments,
)
from tf_spline_prune.litert._convert import SIGNATURE as SIGNATURE, convert as convert
from tf_spline_prune.litert._quantization import Quantize as Quantize
from tf_spline_prune.litert._runner import (
    Runner as Runner,
    interleaved_latencies as interleaved_latencies,
)
from tf_spline_prune.litert._servable import Servable as Servable
