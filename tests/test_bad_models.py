"""Models that cannot be compiled: the right error, one clear message, quickly, no file left behind.

Every case goes through the Python API and through the command line.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import wasmgraph
from tests.onnx_models import CUSTOM_DOMAIN, make_model, node
from tests.refusals import Refusal, address_space
from wasmgraph.errors import InputError, ModelError, UnsupportedModelError

X = {"x": (2, 3)}
HUGE = 2**40


def relu_model() -> onnx.ModelProto:
    return make_model([node("Relu", "x", "y")], X, "y")


def weighted_model(weight: np.ndarray | None = None) -> onnx.ModelProto:
    weight = np.ones((2, 3), np.float32) if weight is None else weight
    return make_model([node("Add", "x w", "y")], X, "y", {"w": weight})


class TestNotAModel:
    def test_a_text_file(self, refuse: Refusal) -> None:
        refuse(b"this is not a model\n", ModelError, "bad.onnx is not an ONNX model")

    def test_a_git_lfs_pointer_is_hinted_at(self, refuse: Refusal) -> None:
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        refuse(pointer, ModelError, "Git LFS pointer")

    def test_an_empty_file(self, refuse: Refusal) -> None:
        refuse(b"", ModelError, "bad.onnx is not an ONNX model")

    def test_random_bytes(self, refuse: Refusal) -> None:
        for seed in range(5):
            refuse(np.random.default_rng(seed).bytes(2000), ModelError, "bad.onnx")

    def test_a_folder(self, refuse: Refusal, tmp_path: Path) -> None:
        (tmp_path / "folder.onnx").mkdir()
        refuse(tmp_path / "folder.onnx", ModelError, "folder.onnx", "Is a directory")

    def test_a_file_that_is_not_there(self, refuse: Refusal, tmp_path: Path) -> None:
        refuse(tmp_path / "no.onnx", ModelError, "no.onnx", "No such file")

    def test_a_file_larger_than_protobuf_reads(self, refuse: Refusal, tmp_path: Path) -> None:
        with (tmp_path / "large.onnx").open("wb") as file:
            file.truncate(HUGE)  # sparse: it takes no disk
        with address_space(2**32):
            refuse(tmp_path / "large.onnx", ModelError, "large.onnx", "1024.0 GiB")

    def test_another_protobuf_message(self, refuse: Refusal) -> None:
        tensor = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
        refuse(tensor.SerializeToString(), ModelError, "bad.onnx")

    @pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.999])
    def test_a_truncated_model(self, refuse: Refusal, digits_onnx: Path, share: float) -> None:
        whole = digits_onnx.read_bytes()
        refuse(whole[: int(len(whole) * share)], ModelError, "bad.onnx")


class TestUnsupportedOperators:
    def test_every_one_is_listed_by_name_and_operator(self, refuse: Refusal) -> None:
        body = helper.make_graph(
            [node("Identity", "c", "d"), node("Frobnicate", "v", "w", domain=CUSTOM_DOMAIN)],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, ()),
                helper.make_tensor_value_info("c", TensorProto.BOOL, ()),
                helper.make_tensor_value_info("v", TensorProto.FLOAT, (2, 3)),
            ],
            [
                helper.make_tensor_value_info("d", TensorProto.BOOL, ()),
                helper.make_tensor_value_info("w", TensorProto.FLOAT, (2, 3)),
            ],
        )
        model = make_model(
            [
                node("Frobnicate", "x", "a", name="first", domain=CUSTOM_DOMAIN),
                node("Relu", "a", "b", name="fine"),
                node("Transmogrify", "b", "c", domain=CUSTOM_DOMAIN),
                node("NonZero", "c", "e", name="sparse"),
                node("Loop", "n  c", "y", name="loop", body=body),
            ],
            {"x": (2, 3), "n": ("int64", ())},
            {"y": ("float32", None), "e": ("int64", None)},
        )
        error = refuse(model, UnsupportedModelError)
        assert isinstance(error, UnsupportedModelError)
        assert [(o.node, o.op) for o in error.obstacles] == [
            ("first", "example.org.Frobnicate"),
            ("Transmogrify#2", "example.org.Transmogrify"),
            ("sparse", "NonZero"),
            ("loop", "Loop"),
            ("w", "example.org.Frobnicate"),
        ]
        assert "fine" not in error.message
        assert "depends on data" in error.message

    def test_an_operator_that_onnx_does_not_know(self, refuse: Refusal) -> None:
        refuse(
            make_model([node("Reluu", "x", "y", name="typo")], X, "y"),
            UnsupportedModelError,
            "typo (Reluu)",
        )

    def test_what_only_the_converter_finds_is_listed_with_the_rest(self, refuse: Refusal) -> None:
        model = make_model(
            [
                node("DFT", ["x", "", "axis"], "a", name="computed axis"),
                node("Cast", "s", "t", to=TensorProto.INT64),
                node("Reshape", "a t", "b", name="computed shape"),
                node("Relu", "b", "y", name="fine"),
            ],
            {"x": (2, 3, 2), "axis": ("int64", ()), "s": ("int32", (2,))},
            "y",
            opset=20,
        )
        error = refuse(model, UnsupportedModelError, "run time")
        assert isinstance(error, UnsupportedModelError)
        assert [o.node for o in error.obstacles] == ["computed axis", "computed shape"]

    def test_strings_are_refused_as_input(self, refuse: Refusal) -> None:
        model = make_model([node("Identity", "s", "y")], {"s": ("str", (2,))}, {"y": ("str", (2,))})
        refuse(model, UnsupportedModelError, "s: this input is not a tensor of numbers")

    def test_a_dtype_that_no_kernel_has(self, refuse: Refusal) -> None:
        model = make_model([node("Identity", "x", "y")], X, "y", opset=21)
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.elem_type = TensorProto.COMPLEX64
        refuse(model, UnsupportedModelError, "x: has the dtype complex64")

    def test_sparse_initializers_are_refused(self, refuse: Refusal) -> None:
        model = make_model([node("Add", "x w", "y")], X, "y")
        model.graph.sparse_initializer.append(
            helper.make_sparse_tensor(
                helper.make_tensor("w", TensorProto.FLOAT, (1,), [1.0]),
                helper.make_tensor("i", TensorProto.INT64, (1,), [2]),
                (6,),
            )
        )
        refuse(model, UnsupportedModelError, "w: a sparse initializer")


class TestOpenAxes:
    def test_what_dynamic_shapes_lack_is_named_and_fixed_shapes_suggested(
        self, refuse: Refusal
    ) -> None:
        nodes = [node("GridSample", "image grid", "y", name="sample")]
        inputs = {"image": ("batch", 3, "height", "width"), "grid": ("batch", 5, 5, 2)}
        refuse(make_model(nodes, inputs, "y"), UnsupportedModelError, "sample", "--shape")

    def test_an_input_of_unknown_rank(self, refuse: Refusal) -> None:
        model = make_model([node("Relu", "x", "y")], {"x": ("float32", None)}, "y")
        refuse(model, UnsupportedModelError, "x: its rank", "--shape x=")

    def test_a_name_that_is_no_input_suggests_the_near_one(self, refuse: Refusal) -> None:
        model = make_model([node("Relu", "image", "y")], {"image": ("n", 3)}, "y")
        refuse(model, InputError, "'imgae'", "'image'", "did you mean", shapes={"imgae": (1, 3)})

    def test_a_wrong_rank(self, refuse: Refusal) -> None:
        refuse(relu_model(), InputError, "'x' has 2 axes", "has 3", shapes={"x": (1, 2, 3)})

    def test_a_negative_extent(self, refuse: Refusal) -> None:
        refuse(relu_model(), InputError, "'x'", "axis 1", "-3", shapes={"x": (2, -3)})

    def test_two_extents_for_one_named_axis(self, refuse: Refusal) -> None:
        model = make_model(
            [node("Relu", "a", "c"), node("Relu", "b", "d")],
            {"a": ("batch", 2), "b": ("batch", 3)},
            "c d",
        )
        refuse(model, InputError, "'batch'", "4", "5", shapes={"a": (4, 2), "b": (5, 3)})
        refuse(
            make_model([node("Relu", "a", "c")], {"a": ("n", "n")}, "c"),
            InputError,
            "'n'",
            shapes={"a": (4, 5)},
        )

    def test_a_shape_that_the_nodes_cannot_take(self, refuse: Refusal) -> None:
        model = make_model([node("Add", "a b", "c")], {"a": ("n",), "b": ("m",)}, "c")
        refuse(model, ModelError, "Incompatible dimensions", "Add", shapes={"a": (4,), "b": (5,)})


class TestExternalData:
    @pytest.fixture
    def apart(self, tmp_path: Path) -> Path:
        """A model whose weights lie in apart.bin, 24 bytes from its start."""
        folder = tmp_path / "model"
        folder.mkdir()
        self.save(folder / "apart.onnx", location="apart.bin", offset=0, length=24)
        (folder / "apart.bin").write_bytes(np.ones(6, np.float32).tobytes())
        return folder / "apart.onnx"

    def save(self, path: Path, **entries: object) -> None:
        model = weighted_model()
        (weight,) = model.graph.initializer
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            weight.external_data.add(key=key, value=str(value))
        path.write_bytes(model.SerializeToString())

    def test_compiles_where_it_is_in_its_place(self, apart: Path, tmp_path: Path) -> None:
        wasmgraph.compile(apart, tmp_path / "out.wasm", verify=False)
        with wasmgraph.load(tmp_path / "out.wasm") as graph:
            y = graph.run({"x": np.zeros((2, 3), np.float32)})["y"]
        np.testing.assert_array_equal(y, np.ones((2, 3), np.float32))

    def test_that_is_missing(self, refuse: Refusal, apart: Path) -> None:
        apart.with_name("apart.bin").unlink()
        refuse(apart, ModelError, "'w'", "apart.bin", "No such file", "beside the .onnx file")

    def test_that_is_too_short(self, refuse: Refusal, apart: Path) -> None:
        apart.with_name("apart.bin").write_bytes(b"\0" * 23)
        refuse(apart, ModelError, "'w'", "apart.bin", "ends before the 24 bytes")

    def test_of_the_wrong_length_for_its_shape(self, refuse: Refusal, apart: Path) -> None:
        apart.with_name("apart.bin").write_bytes(b"\0" * 40)
        self.save(apart, location="apart.bin")
        refuse(apart, ModelError, "'w'", "24 bytes", "40")

    @pytest.mark.parametrize(
        "entries",
        [{"offset": -1}, {"length": -1}, {"offset": "one"}, {"length": 2**60}, {"offset": 2**60}],
        ids=str,
    )
    def test_at_an_impossible_place(
        self, refuse: Refusal, apart: Path, entries: dict[str, object]
    ) -> None:
        self.save(apart, location="apart.bin", **entries)
        with address_space(2**33):
            refuse(apart, ModelError, "'w'", "apart.bin")

    def test_that_is_no_file(self, refuse: Refusal, apart: Path) -> None:
        for make in (Path.mkdir, os.mkfifo):
            path = apart.with_name("apart.bin")
            path.rmdir() if path.is_dir() else path.unlink()
            make(path)
            refuse(apart, ModelError, "'w'", "it is no file")

    def test_of_a_huge_file_is_not_read(self, refuse: Refusal, apart: Path) -> None:
        with apart.with_name("apart.bin").open("wb") as file:
            file.truncate(HUGE)  # sparse: it takes no disk
        self.save(apart, location="apart.bin")
        with address_space(2**32):
            refuse(apart, ModelError, "'w'", "24 bytes", str(HUGE))

    def test_that_many_tensors_share_counts_for_each(
        self, refuse: Refusal, apart: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("wasmgraph.importer.load.MAX_WEIGHT_BYTES", 2**20)
        nbytes = 2**18
        apart.with_name("apart.bin").write_bytes(bytes(nbytes))
        model = onnx.load(apart, load_external_data=False)
        (weight,) = model.graph.initializer
        weight.data_type = TensorProto.INT8
        weight.dims[:] = [nbytes]
        del weight.external_data[1:]
        for number in range(4):
            model.graph.initializer.add().CopyFrom(weight)
            model.graph.initializer[-1].name = f"w{number}"
        apart.write_bytes(model.SerializeToString())
        refuse(apart, ModelError, "GiB of weights")

    @pytest.mark.parametrize("location", ["../secret.bin", "a/../../secret.bin", "/etc/passwd", ""])
    def test_outside_the_folder(
        self, refuse: Refusal, apart: Path, tmp_path: Path, location: str
    ) -> None:
        (tmp_path / "secret.bin").write_bytes(b"\0" * 24)
        self.save(apart, location=location, length=24)
        refuse(apart, ModelError, "'w'", "outside the model's folder")

    def test_behind_a_link_that_leaves_the_folder(
        self, refuse: Refusal, apart: Path, tmp_path: Path
    ) -> None:
        secret = tmp_path / "secret.bin"
        secret.write_bytes(b"\0" * 24)
        apart.with_name("apart.bin").unlink()
        apart.with_name("apart.bin").symlink_to(secret)
        refuse(apart, ModelError, "'w'", "outside the model's folder")

    def test_behind_a_link_to_itself(self, refuse: Refusal, apart: Path) -> None:
        apart.with_name("apart.bin").unlink()
        apart.with_name("apart.bin").symlink_to("apart.bin")
        refuse(apart, ModelError, "'w'", "apart.bin")

    def test_with_a_name_that_no_file_can_have(self, refuse: Refusal, apart: Path) -> None:
        self.save(apart, location="a\0b")
        refuse(apart, ModelError, "'w'")

    def test_of_a_model_in_memory_says_how_to_load_it(self, apart: Path) -> None:
        model = onnx.load(apart, load_external_data=False)
        with pytest.raises(ModelError, match="ModelProto in memory") as caught:
            wasmgraph.compile(model, apart.with_name("out.wasm"), verify=False)
        assert "onnx.load" in str(caught.value.hint)


class TestInvalidGraphs:
    def test_an_initializer_shorter_than_its_shape(self, refuse: Refusal) -> None:
        model = weighted_model()
        model.graph.initializer[0].dims[0] = 3
        refuse(model, ModelError, "'w'", "[3, 3]", "36 bytes", "24")

    def test_an_initializer_of_a_huge_shape_without_data(self, refuse: Refusal) -> None:
        model = weighted_model()
        model.graph.initializer[0].dims[0] = HUGE
        refuse(model, ModelError, "'w'")

    def test_typed_data_shorter_than_their_shape(self, refuse: Refusal) -> None:
        for elements in (6, 5000):
            model = weighted_model()
            weight = model.graph.initializer[0]
            weight.ClearField("raw_data")
            weight.dims[:] = [elements]
            weight.float_data.extend([1.0] * (elements - 1))
            refuse(model, ModelError, "w")

    def test_a_negative_dimension(self, refuse: Refusal) -> None:
        model = weighted_model()
        model.graph.initializer[0].dims[:] = [-2, -3]
        refuse(model, ModelError, "'w'", "negative")

    def test_unknown_dtypes(self, refuse: Refusal) -> None:
        model = weighted_model()
        model.graph.initializer[0].data_type = 77
        refuse(model, ModelError, "w", "77")
        model = weighted_model()
        model.graph.input[0].type.tensor_type.elem_type = 77
        refuse(model, UnsupportedModelError, "x: this input is not a tensor of numbers")

    def test_two_nodes_that_write_one_tensor(self, refuse: Refusal) -> None:
        nodes = [node("Relu", "x", "y"), node("Neg", "x", "y")]
        refuse(make_model(nodes, X, "y"), ModelError, "'y'", "multiple times")

    def test_a_cycle(self, refuse: Refusal) -> None:
        nodes = [node("Add", "x z", "y"), node("Relu", "y", "z")]
        refuse(make_model(nodes, X, "z"), ModelError, "sorted", "'z'")

    def test_nodes_out_of_order(self, refuse: Refusal) -> None:
        nodes = [node("Relu", "y", "z"), node("Relu", "x", "y")]
        refuse(make_model(nodes, X, "z"), ModelError, "sorted", "'y'")

    def test_a_tensor_that_nobody_computes(self, refuse: Refusal) -> None:
        refuse(make_model([node("Add", "x q", "y")], X, "y"), ModelError, "'q'")
        refuse(make_model([node("Relu", "x", "y")], X, "y q"), ModelError, "'q'")

    def test_an_output_that_is_listed_twice(self, refuse: Refusal) -> None:
        model = relu_model()
        model.graph.output.append(model.graph.output[0])
        refuse(model, ModelError, "'y' twice")

    def test_a_graph_without_outputs(self, refuse: Refusal) -> None:
        refuse(make_model([node("Relu", "x", "y")], X, {}), ModelError, "no outputs")

    def test_no_opset(self, refuse: Refusal) -> None:
        model = relu_model()
        model.ClearField("opset_import")
        refuse(model, ModelError, "opset_import")

    def test_a_node_with_too_many_inputs_or_without_an_attribute(self, refuse: Refusal) -> None:
        refuse(make_model([node("Relu", "x x", "y")], X, "y"), ModelError, "Relu")
        refuse(make_model([node("Cast", "x", "y")], X, "y"), ModelError, "to")

    def test_dtypes_that_do_not_fit(self, refuse: Refusal) -> None:
        model = weighted_model(np.ones((2, 3), np.int64))
        refuse(model, ModelError, "Add#0", "inconsistent type")

    def test_shapes_that_do_not_fit(self, refuse: Refusal) -> None:
        model = weighted_model(np.ones((2, 4), np.float32))
        refuse(model, ModelError, "Add#0", "Incompatible dimensions")

    def test_a_window_larger_than_the_picture(self, refuse: Refusal) -> None:
        for extent in (3, 5):
            weight = np.ones((4, 5, extent, extent), np.float32)
            model = make_model([node("Conv", "x w", "y")], {"x": (1, 5, 2, 2)}, "y", {"w": weight})
            refuse(model, ModelError, "Conv#0", "[1, 5, 2, 2] is too small")

    def test_an_index_outside_its_axis(self, refuse: Refusal) -> None:
        model = make_model([node("Gather", "x i", "y")], X, "y", {"i": np.array([2])})
        refuse(model, UnsupportedModelError, "Gather#0", "outside")


class TestHugeTensors:
    """Refused by their declared sizes: nothing of that size is ever allocated."""

    @pytest.fixture(autouse=True)
    def small_machine(self) -> Iterator[None]:
        # What is imported lazily is loaded before the limit holds.
        for module in ("importer.relax_graph", "optimise.pipeline", "link", "codegen.object_code"):
            importlib.import_module(f"wasmgraph.{module}")
        with address_space(2**32):
            yield

    def test_a_declared_input(self, refuse: Refusal) -> None:
        model = make_model([node("Relu", "x", "y")], {"x": (2**20, 2**20)}, "y")
        refuse(model, UnsupportedModelError, "x: float32[1048576, 1048576]", "4096 GiB")

    def test_a_given_shape(self, refuse: Refusal) -> None:
        model = make_model([node("Relu", "x", "y")], {"x": ("n",)}, "y")
        refuse(model, UnsupportedModelError, "--shape x=", shapes={"x": (HUGE,)})

    @pytest.mark.parametrize("extent", [2**33, HUGE, 2**62])
    @pytest.mark.parametrize(
        ("op", "operands"),
        [
            ("Expand", {"": None, "s": [1]}),
            ("Tile", {"": None, "s": [1]}),
            ("ConstantOfShape", {"s": [1]}),
            ("Pad", {"": None, "s": [0, 1]}),
            ("Range", {"zero": 0, "s": 1, "one": 1}),
            ("OneHot", {"indices": [0], "s": 1, "values": [0.0, 1.0]}),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_node_s_output(
        self, refuse: Refusal, op: str, operands: dict[str, object], extent: int
    ) -> None:
        weights = {
            name: np.array(value, np.float32)
            if name == "values"
            else np.array(value, np.int64) * (extent if name == "s" else 1)
            for name, value in operands.items()
            if value is not None
        }
        if op == "Range":
            weights["one"] = np.array(1)
        model = make_model(
            [
                node(op, " ".join(name or "x" for name in operands), "a", name="large"),
                node("Cast", "a", "b", to=TensorProto.FLOAT),
                node("ReduceSum", "b", "y", keepdims=0),
            ],
            {"x": (1,)},
            "y",
            weights,
        )
        error = refuse(model, UnsupportedModelError, f"large ({op})", "32-bit memory")
        assert isinstance(error, UnsupportedModelError)
        assert len(error.obstacles) == 1, "only the node that makes it, not those that read it"

    @pytest.mark.parametrize("extent", [2**33, HUGE, 2**62])
    def test_a_shape_of_more_elements_than_there_are(self, refuse: Refusal, extent: int) -> None:
        nodes = [node("Reshape", "x s", "y", name="large")]
        model = make_model(nodes, {"x": (1,)}, "y", {"s": np.array([extent])})
        refuse(model, ModelError, "large (Reshape)", f"[1] cannot become [{extent}]")

    def test_everything_together(self, refuse: Refusal) -> None:
        inputs = {f"x{i}": (2**28,) for i in range(4)}
        model = make_model([node("Sum", " ".join(inputs), "y")], inputs, "y")
        refuse(model, UnsupportedModelError, "GiB of memory", "smaller input shapes")
