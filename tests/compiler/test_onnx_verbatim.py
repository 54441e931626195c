"""ONNX nodes that Relax does not express: run as they are, by their definition, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import lepton
from lepton.compiler.importers import import_model
from lepton.errors import ImportFailure, ProgramError
from lepton.program import Program
from lepton.runtime.golden import onnx_session

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)


def model_of(text: str, opset: int = 21) -> Any:
    """Return the model of a graph in ONNX's own textual form."""
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')


def compiled(text: str, opset: int = 21) -> Program:
    return lepton.load_program(lepton.compile(model_of(text, opset)).to_bytes())


def run(program: Program, **inputs: Any) -> list[Any]:
    return list(lepton.simulate(program, inputs, timing=False).outputs.values())


def assert_golden(text: str, opset: int = 21, /, **inputs: Any) -> Program:
    """Assert that a model gives exactly what ONNX Runtime gives."""
    program = compiled(text, opset)
    golden = onnx_session(model_of(text, opset).SerializeToString()).run(None, inputs)
    for ours, theirs in zip(run(program, **inputs), golden, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    return program


def kinds(program: Program) -> list[str]:
    return [operator.kind for operator in program.operators if operator.kind != "halt"]


LSTM = """g (float[5,2,3] x, float[1,16,3] w, float[1,16,4] r)
    => (float[5,1,2,4] y, float[1,2,4] c) { y, , c = LSTM<hidden_size = 4>(x, w, r) }"""


def test_a_node_that_tvm_lacks_runs_as_it_is() -> None:
    rng = np.random.default_rng(0)
    shapes = {"x": (5, 2, 3), "w": (1, 16, 3), "r": (1, 16, 4)}
    inputs = {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
    program = assert_golden(LSTM, **inputs)
    assert kinds(program) == ["LSTM"]
    assert program.operators[0].macs == 5 * 2 * 16 * (3 + 4)


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("Conv(x, w)} ; [1,3,9] [5,3,2]", 5 * 8 * 3 * 2),
        ("ConvTranspose(x, w)} ; [1,3,4,4] [3,5,2,2]", 3 * 16 * 5 * 4),
        ('Einsum<equation = "bij,jk->bik">(x, w)} ; [2,3,4] [4,5]', 2 * 3 * 4 * 5),
        ('Einsum<equation = "...ij, ...j">(x, w)} ; [2,3,4] [2,4]', 2 * 3 * 4),
        ("Attention(x, w, w)} ; [1,2,3,8] [1,2,5,8]", 2 * 2 * 3 * 8 * 5),
    ],
)
def test_macs_of_nodes_are_counted(text: str, macs: int) -> None:
    body, shapes = text.split(" ; ")
    x, w = shapes.split()
    program = compiled(f"g (float{x} x, float{w} w) => (float y) {{ y = {body}", 23)
    assert sum(operator.macs for operator in program.operators) == macs


def test_a_node_between_npu_and_host() -> None:
    text = """g (float[1,4,6] x) => (float[1,4,6] y) <float s = {0.1}, int8 z = {0}> {
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        r = Sigmoid(d)
        p = QuantizeLinear(r, s, z)
        e = DequantizeLinear(p, s, z)
        m = LpNormalization<axis = 2>(e)
        y = Relu(m) }"""
    x = np.random.default_rng(0).standard_normal((1, 4, 6)).astype(np.float32)
    program = assert_golden(text, x=x)
    devices = [region.device for region in program.regions]
    assert devices.count("npu") == 1 and "LpNormalization" in kinds(program)


RESHAPE = "g (float[3,4] x, int64[2] s) => (float[2,6] y) { y = Reshape(x, s) }"


def test_the_stated_shape_of_an_output_is_kept_and_checked() -> None:
    program = assert_golden(RESHAPE, x=X, s=np.array([2, 6]))
    with pytest.raises(ProgramError, match=r"must give 'y' as float32 \[2, 6\], not .* \[6, 2\]"):
        run(program, x=X, s=np.array([6, 2]))


@pytest.mark.parametrize(
    ("text", "opset", "reason"),
    [
        (RESHAPE.replace("[2,6]", "[M,N]"), 21, "size of its output 'y' depends on values"),
        ("g (float[2] x) => (int4[2] y) { y = Cast<to = 22>(x) }", 21, "type int4 are not"),
        ("g (bfloat16[2] x) => (bfloat16[2] y) { y = Abs(x) }", 21, "'x' is of type bfloat16; inp"),
        ("g (float[2] x) => (float[2] y) { y = Bernoulli(x) }", 21, "random numbers"),
        (
            "g (float[2] x, float r, bool t) => (float[2] y) { y = Dropout(x, r, t) }",
            21,
            "training mode is not supported",
        ),
        (
            'g (uint8[2] x) => (uint8[2] y) { y = BitShift<direction = "LEFT">(x, x) }',
            28,
            "opset 28 is not supported, that of opset 26",
        ),
        ("g (float[2] x) => (float[2] y) { y = Mod(x, x) }", 28, "remainder of floats"),
        (
            """g (bool c, float[2] x) => (float[2] y) { y = If (c) <
                then_branch = t () => (float[2] a) { a = Neg(x) },
                else_branch = e () => (float[2] b) { b = Abs(x) }> }""",
            21,
            "control flow is not supported",
        ),
        ("g (bool[2] x) => (uint8[2] y) { y = BitCast<to = 2>(x) }", 26, "Could not find an impl"),
    ],
)
def test_refusals(text: str, opset: int, reason: str) -> None:
    with pytest.raises(ImportFailure, match=reason):
        import_model(model_of(text, opset))


def test_a_new_operator_runs_by_its_definition() -> None:
    x = X.astype(np.float16)
    text = "g (float16[3,4] x) => (float16[3,4] y) { y = Celu<alpha = 2.0>(x) }"
    (made,) = run(compiled(text, 28), x=x)
    expected = np.maximum(X, 0) + np.minimum(0, 2 * np.expm1(X / 2))
    np.testing.assert_allclose(made, expected, rtol=2e-3)
    text = """g (float[1,1,4,4] x) => (float[1,4,2,2] y) {
        y = SpaceToDepth<blocksize = 2, mode = "CRD">(x) }"""
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    (made,) = run(compiled(text, 28), x=x)
    blocks = x.reshape(1, 1, 2, 2, 2, 2).transpose(0, 1, 3, 5, 2, 4)
    np.testing.assert_array_equal(made, blocks.reshape(1, 4, 2, 2))


def test_a_definition_may_leave_out_optional_inputs() -> None:
    text = """g (float[1,2,5] x, float[2,1,3] w) => (float[1,2,5] y, float[1,2,2] s) {
        y, s = CausalConvWithState(x, w) }"""
    program = compiled(text, 27)
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((1, 2, 5), (2, 1, 3)))
    y, state = run(program, x=x, w=w)
    padded = np.pad(x, ((0, 0), (0, 0), (2, 0)))
    expected = sum(padded[:, :, k : k + 5] * w[:, 0, k][:, None] for k in range(3))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state, x[:, :, -2:])


def test_an_older_kernel_of_the_same_meaning_serves() -> None:
    text = """g (float[1,1,6,6] x, float[1,4] r, int64[1] b) => (float[1,1,2,2] y) {
        y = RoiAlign<output_height = 2, output_width = 2>(x, r, b) }"""
    x = np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6)
    inputs = {"x": x, "r": np.array([[0, 0, 4, 4]], np.float32), "b": np.array([0])}
    golden = onnx_session(model_of(text, 16).SerializeToString()).run(None, inputs)
    np.testing.assert_array_equal(run(compiled(text, 22), **inputs)[0], golden[0])


@pytest.mark.parametrize(("condition", "expected"), [(1, -X), (0, abs(X))])
def test_an_if_of_a_constant_is_its_branch(condition: int, expected: Any) -> None:
    text = f"""g (float[3,4] x) => (float[3,4] y) <bool c = {{{condition}}}> {{ y = If (c) <
        then_branch = t () => (float[3,4] a) {{ b = Abs(x) a = Neg(x) }},
        else_branch = e () => (float[3,4] a) {{ b = Neg(x) a = Abs(x) }}> }}"""
    np.testing.assert_array_equal(run(compiled(text), x=X)[0], expected)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[3,4] x) => (float[3,4] y) { y = Dropout(x) }",
        "g (float[3,4] x) => (float[3,4] y, bool[3,4] m) { y, m = Dropout(x) }",
        "g (float[3,4] x) => (float16[3,4] y) { y = Cast<to = 10>(x) }",
        "g (float[3,4] x) => (uint32[3,4] y) { a = Abs(x) y = Cast<to = 12>(a) }",
        """g (float[3,4] x) => (uint8[3,4] y, float s, uint8 z) {
            y, s, z = DynamicQuantizeLinear(x) }""",
        """g (float[3,4] x) => (float[3,4] y, float[4] m, float[4] v)
            <float[4] a = {1,2,3,4}> {
            y, m, v = BatchNormalization<training_mode = 1>(x, a, a, a, a) }""",
        """g (float[3,4] x) => (float[1,1,1,2] y) <int64[4] s = {1,1,3,4}> { r = Reshape(x, s)
            y = AveragePool<kernel_shape = [2,2], dilations = [2,2]>(r) }""",
        """g (float[3,4] x) => (float y) <int64[4] s = {1,1,3,4}, float[4] f = {1,1,1.5,1}> {
            r = Reshape(x, s) y = Resize<mode = "linear">(r, , f) }""",
    ],
)  # fmt: skip
def test_what_tvm_reads_otherwise(text: str) -> None:
    assert_golden(text, x=X)


@pytest.mark.parametrize("axis", [0, -1])
def test_gather_by_computed_indices_from_either_end(axis: int) -> None:
    text = f"g (float[3,4] x, int64[2] i) => (float y) {{ y = Gather<axis = {axis}>(x, i) }}"
    assert_golden(text, x=X, i=np.array([-1, 1]))
    constant = text.replace(", int64[2] i)", ")").replace("{ y", "<int64[2] i = {-1, 1}> { y", 1)
    assert_golden(constant, x=X)


def test_empty_tensors() -> None:
    text = "g (float[0,4] x, float[3,4] b) => (float[3,4] y) { y = Concat<axis = 0>(x, b) }"
    assert_golden(text, x=np.zeros((0, 4), np.float32), b=X)


def test_a_host_program_takes_nan() -> None:
    x = np.array([np.nan, np.inf, 1], np.float32)
    (made,) = run(compiled("g (float[3] x) => (bool[3] y) { y = IsNaN(x) }"), x=x)
    assert made.tolist() == [True, False, False]
