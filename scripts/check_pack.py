"""Opens a pack's joined GGUF files with PyPI's `gguf`, somebody else's reader.

    python scripts/check_pack.py PACK [REFERENCE.gguf]

Prints what it finds and fails where sizes, hashes or tensors are not as model.json says. With a reference file (the
decoder that a pack was made of) every decoder tensor of equal type must have equal bytes.
"""

import hashlib
import json
import pathlib
import sys
import tempfile

import gguf


def joined(pack, file, folder):
    """The file with its parts joined, as `cat` does."""
    path = pathlib.Path(folder) / file["name"]
    digest = hashlib.sha256()
    with open(path, "wb") as out:
        for part in file["parts"]:
            data = (pack / part["name"]).read_bytes()
            assert len(data) == part["size"] and hashlib.sha256(data).hexdigest() == part["sha256"], part["name"]
            digest.update(data)
            out.write(data)
    assert digest.hexdigest() == file["sha256"] and path.stat().st_size == file["size"], file["name"]
    return path


def main(pack, reference=None):
    pack = pathlib.Path(pack)
    manifest = json.loads((pack / "model.json").read_text())
    assert sum(f["size"] for f in manifest["files"]) == manifest["total"]
    with tempfile.TemporaryDirectory() as folder:
        for file in manifest["files"]:
            path = joined(pack, file, folder)
            if path.suffix != ".gguf":
                continue
            reader = gguf.GGUFReader(path)
            kinds = {}
            for tensor in reader.tensors:
                kinds[tensor.tensor_type.name] = kinds.get(tensor.tensor_type.name, 0) + 1
                gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            architecture = reader.fields["general.architecture"].contents()
            print(f"{path.name}: {architecture}, {len(reader.tensors)} tensors {kinds}, {len(reader.fields)} fields")
            if reference and path.name == "decoder.gguf":
                theirs = {t.name: t for t in gguf.GGUFReader(reference).tensors}
                same = [t.name for t in reader.tensors if t.name in theirs and theirs[t.name].tensor_type == t.tensor_type]
                for tensor in (t for t in reader.tensors if t.name in same):
                    assert (tensor.data == theirs[tensor.name].data).all(), f"{tensor.name} differs"
                print(f"{len(same)} of {len(theirs)} tensors are the reference's, byte for byte")


if __name__ == "__main__":
    main(*sys.argv[1:])
