#!/usr/bin/env python3
"""What distil.py has trained of a model, as a patch of its file.

    patch.py BASE.gguf OUT-of-distil.py PATCH.gguf [--type q8_0] [--name NAME] [--recall TOKENS]
    patch.py BASE.gguf LATER.gguf PATCH.gguf --mix EARLIER.gguf --share 0.3    # of both, 0.3 of the second one
    cca export BASE.gguf --patch PATCH.gguf -o MODEL.gguf

Runs are named by their folder or by the patch that was made of it. The patch has the trained tensors, the settings of CCA and of RoPE, and the checksums of all of the base's tensors, by
which `cca export` knows that it is the right one.
"""
import argparse
import json
import zlib
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType
from safetensors import safe_open

import unpack

TYPES = {"f32": GGMLQuantizationType.F32, "f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0}


def trained(path, head_dim):
    """({name in llama.Llama: tensor}, settings) of a folder of distil.py's, or of a patch."""
    weights, about, path = {}, {}, Path(path)
    if path.is_file():
        file = gguf.GGUFReader(path)
        about = {key: unpack.value(file, f"cca.{key}") for key in ("group_size", "window_size", "sinks", "recall", "cores")}
        about["yarn"] = unpack.value(file, "llama.rope.scaling.factor", 1)
        about["reach"] = unpack.value(file, "llama.rope.scaling.original_context_length", 0)
        return unpack.unpack(file, head_dim), about
    for shard in sorted(path.glob("weights-*.safetensors")):
        with safe_open(shard, "pt") as file:
            about = json.loads(file.metadata()["cca"])
            weights |= {name: file.get_tensor(name) for name in file.keys()}
    if not weights:
        raise SystemExit(f"{path}: no weights-*.safetensors")
    return weights, about


def mixed(weights, others, share):
    """The mean of two runs' weights, `share` of it the other's."""
    if weights.keys() != others.keys():
        raise SystemExit("--mix: the runs have trained other tensors")
    return {name: (1 - share) * weight.float() + share * others[name].float() for name, weight in weights.items()}


def put_keys(out, base, about, name):
    if name:
        out.add_name(name)
    if license := unpack.value(base, "general.license", ""):
        out.add_license(license)
    for key in ("group_size", "window_size", "sinks", "recall"):
        out.add_uint32(f"cca.{key}", about[key])
    out.add_bool("cca.cores", about["cores"])
    out.add_bool("cca.tuned", True)
    if about["yarn"] != 1:
        out.add_string("llama.rope.scaling.type", "yarn")
        out.add_float32("llama.rope.scaling.factor", about["yarn"])
        out.add_uint32("llama.rope.scaling.original_context_length", about["reach"])
        out.add_uint32("llama.context_length", int(about["reach"] * about["yarn"]))
    out.add_string("cca.patch.base", unpack.value(base, "general.name", "unnamed"))
    out.add_array("cca.patch.tensors", [t.name for t in base.tensors])
    crcs = [zlib.crc32(t.data.tobytes()) for t in base.tensors]
    out.add_key_value("cca.patch.crc32", crcs, GGUFValueType.ARRAY, sub_type=GGUFValueType.UINT32)


def put_tensors(out, base, weights, head_dim, kind):
    for tensor in base.tensors:
        weight = weights.pop(unpack.name_here(tensor.name), None)
        if weight is None:
            continue
        if tensor.name.split(".")[-2] in ("attn_q", "attn_k"):
            weight = unpack.paired(weight, head_dim)
        data = weight.float().numpy()
        if data.ndim > 1 and kind != GGMLQuantizationType.F32:
            out.add_tensor(tensor.name, gguf.quants.quantize(data, kind), raw_dtype=kind)
        else:
            out.add_tensor(tensor.name, np.ascontiguousarray(data))
    if weights:
        raise SystemExit(f"{next(iter(weights))} is none of the base's tensors")


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("base", help="GGUF file")
    p.add_argument("trained", help="folder with weights-*.safetensors, or a patch")
    p.add_argument("patch", help="file to write")
    p.add_argument("--type", choices=TYPES, default="q8_0", help="of matrices")
    p.add_argument("--name", help="what the patched model is called")
    p.add_argument("--recall", type=int, help="tokens that the model recalls unless told otherwise; else what it was trained with")
    p.add_argument("--mix", metavar="OTHER", help="another run of the same base, or its patch: weights are the mean of both")
    p.add_argument("--share", type=float, default=0.5, help="of the other run in that")
    args = p.parse_args(argv)
    base = gguf.GGUFReader(args.base)
    head_dim = unpack.config_of(base).head_dim
    weights, about = trained(args.trained, head_dim)
    if args.mix:
        weights = mixed(weights, trained(args.mix, head_dim)[0], args.share)
    about["recall"] = about["recall"] if args.recall is None else args.recall
    out = gguf.GGUFWriter(args.patch, unpack.value(base, "general.architecture"))
    put_keys(out, base, about, args.name)
    put_tensors(out, base, weights, head_dim, TYPES[args.type])
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    main()
