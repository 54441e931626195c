"""Fixed-point scalars of the Q31 requantizer and the functions built from them.

Every value is an int32 carried in an int64; a function that may leave the int32 range says whether
it saturates or wraps. `Qm.n` is a signed number with m integer and n fractional bits.
"""

import math

from lepton.jit import njit

INT32_MIN = -(1 << 31)
INT32_MAX = (1 << 31) - 1

# exp(-1/8), 1/3 in Q0.31, and exp(-2^k) in Q0.31 for k = -2 .. 4.
_EXP_MINUS_EIGHTH = 1895147668
_ONE_THIRD = 715827883
_EXP_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)

# 48/17 and -32/17 in Q2.29: the linear first guess of Newton's division on [1/2, 1].
_48_OVER_17 = 1515870810
_MINUS_32_OVER_17 = -1010580540

# sqrt(2) / 2 in Q0.31.
_HALF_SQRT_2 = 1518500250


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Split a real factor into a Q31 multiplier and a power of two.

    Args:
        real: The factor, a double.

    Returns:
        `(multiplier, shift)` with `real ~ multiplier * 2**(shift - 31)` and the multiplier in
        [2**30, 2**31) for a positive factor. Factors below about 2**-32 become (0, 0).

    Source: LiteRT tflite/kernels/internal/quantization_util.cc, QuantizeMultiplier.
    """
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    scaled = fraction * (1 << 31)
    # std::round: halves go away from zero. 53 bits hold the sum exactly.
    multiplier = int(math.copysign(math.floor(abs(scaled) + 0.5), scaled))
    if multiplier == 1 << 31:
        multiplier //= 2
        shift += 1
    if shift < -31:
        return 0, 0
    return multiplier, shift


@njit
def wrap_int32(x: int) -> int:
    """Reduce an integer to int32 as two's complement hardware does."""
    return ((x + 2147483648) & 0xFFFFFFFF) - 2147483648


@njit
def saturating_rounding_doubling_high_mul(a: int, b: int) -> int:
    """Return the high half of `2 * a * b`, rounded to nearest, halves up; int32 saturating.

    Source: gemmlowp fixedpoint.h, SaturatingRoundingDoublingHighMul (its nudge and truncating
    division are equal to adding 2**30 and an arithmetic shift by 31).
    """
    if a == INT32_MIN and b == INT32_MIN:
        return INT32_MAX
    return (a * b + (1 << 30)) >> 31


@njit
def rounding_divide_by_pot(x: int, exponent: int) -> int:
    """Return `x / 2**exponent` rounded to nearest, halves away from zero; 0 <= exponent <= 31.

    Source: gemmlowp fixedpoint.h, RoundingDivideByPOT.
    """
    if exponent == 0:
        return x
    half = 1 << (exponent - 1)
    if x < 0:
        half -= 1
    return (x + half) >> exponent


@njit
def multiply_by_quantized_multiplier(acc: int, multiplier: int, shift: int) -> int:
    """Scale an int32 by `multiplier * 2**(shift - 31)` with two roundings.

    A left shift (up to 31) happens before the multiplication and wraps in int32.

    Source: LiteRT tflite/kernels/internal/common.cc, the double-rounding variant.
    """
    left = shift if shift > 0 else 0
    right = 0 if shift > 0 else -shift
    product = saturating_rounding_doubling_high_mul(wrap_int32(acc * (1 << left)), multiplier)
    return rounding_divide_by_pot(product, right)


@njit
def saturating_shift_left(x: int, amount: int) -> int:
    """Return `x * 2**amount` saturated to int32; amount > 0."""
    threshold = (1 << (31 - amount)) - 1
    if x > threshold:
        return INT32_MAX
    if x < -threshold:
        return INT32_MIN
    return x << amount


@njit
def truncating_divide(numerator: int, denominator: int) -> int:
    """Divide by a positive integer, towards zero as C does."""
    if numerator < 0:
        return -((-numerator) // denominator)
    return numerator // denominator


@njit
def rounding_divide(numerator: int, denominator: int) -> int:
    """Divide by a positive integer, to nearest, halves away from zero."""
    if numerator > 0:
        return (numerator + denominator // 2) // denominator
    return -((-numerator + denominator // 2) // denominator)


@njit
def clamp(x: int, low: int, high: int) -> int:
    """Limit `x` to [low, high]; `high` wins if the bounds cross."""
    return min(max(x, low), high)


@njit
def count_leading_zeros(x: int) -> int:
    """Return the leading zero bits of an unsigned 32-bit value."""
    zeros = 32
    while x > 0:
        x >>= 1
        zeros -= 1
    return zeros


@njit
def exp_on_negative_values(x: int) -> int:
    """Return exp(x) in Q0.31 for x <= 0 in Q5.26.

    Source: gemmlowp fixedpoint.h, exp_on_negative_values with 5 integer bits.
    """
    if x == 0:
        return INT32_MAX
    quarter = 1 << 24
    remainder_quarter = (x & (quarter - 1)) - quarter
    a = saturating_shift_left(remainder_quarter, 5) + (1 << 28)
    a2 = saturating_rounding_doubling_high_mul(a, a)
    a3 = saturating_rounding_doubling_high_mul(a2, a)
    a4 = saturating_rounding_doubling_high_mul(a2, a2)
    cubic = saturating_rounding_doubling_high_mul(rounding_divide_by_pot(a4, 2) + a3, _ONE_THIRD)
    polynomial = a + rounding_divide_by_pot(cubic + a2, 1)
    result = _EXP_MINUS_EIGHTH + saturating_rounding_doubling_high_mul(
        _EXP_MINUS_EIGHTH, polynomial
    )
    whole_quarters = remainder_quarter - x
    for k in range(7):
        if whole_quarters & (1 << (24 + k)):
            result = saturating_rounding_doubling_high_mul(result, _EXP_POWERS[k])
    return result


@njit
def one_over_one_plus_x(x: int) -> int:
    """Return 1 / (1 + x) in Q0.31 for x in [0, 1) in Q0.31, by three Newton steps.

    Source: gemmlowp fixedpoint.h, one_over_one_plus_x_for_x_in_0_1.
    """
    half_denominator = (x + INT32_MAX + 1) >> 1
    guess = _48_OVER_17 + saturating_rounding_doubling_high_mul(half_denominator, _MINUS_32_OVER_17)
    for _ in range(3):
        error = (1 << 29) - saturating_rounding_doubling_high_mul(half_denominator, guess)
        step = saturating_rounding_doubling_high_mul(guess, error)
        guess += saturating_shift_left(step, 2)
    return saturating_shift_left(guess, 1)


@njit
def reciprocal(x: int, integer_bits: int) -> tuple[int, int]:
    """Return `(mantissa, exponent)` with 1/x = mantissa (Q0.31) * 2**-exponent, for x > 0.

    Args:
        x: A positive fixed-point number with `integer_bits` integer bits.
        integer_bits: Where its binary point is.

    Source: LiteRT tflite/kernels/internal/common.h, GetReciprocal.
    """
    zeros = count_leading_zeros(x)
    fraction = wrap_int32((x << zeros) - (1 << 31))
    return one_over_one_plus_x(fraction), integer_bits - zeros


@njit
def inverse_square_root(x: int) -> tuple[int, int]:
    """Return `(multiplier, shift)` of 1/sqrt(x) for `multiply_by_quantized_multiplier`; x >= 0.

    Zero counts as one. Five Newton steps in Q3.28.

    Source: LiteRT tflite/kernels/internal/common.h, GetInvSqrtQuantizedMultiplierExp with
    reverse_shift = -1.
    """
    if x <= 1:
        return INT32_MAX, 0
    shift = 11
    while x >= 1 << 29:
        x //= 4
        shift += 1
    left_pairs = (count_leading_zeros(x) - 1) // 2 - 1
    shift -= left_pairs
    x <<= 2 * left_pairs
    half = rounding_divide_by_pot(x >> 1, 1)
    three_halves = (1 << 28) + (1 << 27)
    root = 1 << 28
    for _ in range(5):
        square = saturating_rounding_doubling_high_mul(root, root)
        cube = saturating_shift_left(saturating_rounding_doubling_high_mul(square, root), 6)
        difference = saturating_rounding_doubling_high_mul(
            three_halves, root
        ) - saturating_rounding_doubling_high_mul(half, cube)
        root = saturating_shift_left(difference, 3)
    root = saturating_rounding_doubling_high_mul(root, _HALF_SQRT_2)
    if shift < 0:
        root = wrap_int32(root << -shift)
        shift = 0
    return root, -shift
