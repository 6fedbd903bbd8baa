#!/usr/bin/env python3
"""tiny.gguf: a patch of ../kquants/tiny.gguf with its first attention in f16, by the package gguf: make.py"""
import zlib
from pathlib import Path

import gguf
import numpy as np

here = Path(__file__).parent
base = gguf.GGUFReader(here / "../kquants/tiny.gguf")
out = gguf.GGUFWriter(here / "tiny.gguf", base.get_field("general.architecture").contents())
out.add_name("Patched")
out.add_uint32("cca.group_size", 8)
out.add_uint32("cca.window_size", 64)
out.add_string("cca.patch.base", "tiny")
out.add_array("cca.patch.tensors", [t.name for t in base.tensors])
crcs = [zlib.crc32(t.data.tobytes()) for t in base.tensors]
out.add_key_value("cca.patch.crc32", crcs, gguf.GGUFValueType.ARRAY, sub_type=gguf.GGUFValueType.UINT32)
for tensor in base.tensors:
    if tensor.name == "blk.0.attn_q.weight":
        out.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float16))
out.write_header_to_file()
out.write_kv_data_to_file()
out.write_tensors_to_file()
out.close()
