"""Special functions of one float: the error function's complement and inverse, gamma and its logarithmic derivatives.

Their bodies compute in float64 with polynomials made for their type (`_LONG`, `_SHORT` for float32 results: a Chebyshev
interpolation of the exact function, in 50 digits), the same ones on NumPy arrays and in kernels. There are no branches:
every range is computed, then one is chosen.

Sources: M. M. Shepherd, J. G. Laframboise, Math. Comp. 36 (1981), for erfc; M. Giles, "Approximating the erfinv
function", 2010, for the variables in which erfinv is smooth; Abramowitz & Stegun, Handbook of Mathematical Functions,
6.1.15 (recurrence), 6.1.17 (reflection), 6.1.40 (Stirling's series) and 6.3, 6.4 for the derivatives.

Errors in units in the last place: float32 results are off by 0.6 at most; float64 ones by 2.2 (erfinv), 3 (erfc) and
5 (the rest). Left of 0 gammaln, digamma and tetragamma are differences of two terms, and near their zeros there in
float64 only as exact as the larger term is.

Deliberately not here: erf (an exponential: `elementwise.py`), derivatives of digamma beyond the second.
"""

from __future__ import annotations

import math as constants
from typing import Any

from gluonish.nd.errors import user_line
from gluonish.nd.op import Op
from gluonish.nd.ops.elementwise import exp, smooth_function

_PI = constants.pi
_PI_SQUARED = 9.869604401089358
_INVERSE_E = (0.36787944117144233, -1.2428753672788363e-17)  # 1 / e, as a sum of two numbers
_ROOT_OF_INVERSE_E = 0.6065306597126334
_ROOT_OF_TURN_BY_E = (1.520346901066281, -9.239528122039697e-17)  # the root of 2 pi / e, likewise
_TINY = 2.0**-60  # so small that only the first term of any series counts

# (1 + 2x) exp(x^2) erfc(x) by (x - 3) / (x + 3), for 0 <= x until erfc is 0
_ERFC = (
    (
        1.2530080582697296, -0.13562110612458114, -0.04756229435345094, 0.12964515870275697, -0.11927366341529073,
        0.0683080273441382, -0.023770514919204698, 0.0025293918129280163, 0.0018886903670115092, -0.0007798322386276469,
        -0.0001051598572358333, 0.00012509913767568294, 4.9497245033204926e-06, -2.0099694021318905e-05,
        -7.320875578021364e-07, 3.470101046768449e-06, 3.5755855578470205e-07, -6.126772231340554e-07,
        -1.4176265099424317e-07, 9.760149970565255e-08, 4.1077038138468834e-08, -1.071688681929811e-08,
        -7.615512116966854e-09, 2.956106464354406e-10, 5.583806429327011e-10,
    ),
    (
        1.2530080582782335, -0.1356211063987206, -0.04756229591214243, 0.12964517453145144, -0.11927361009849632,
        0.06830778324973019, -0.023771248700283323, 0.0025307788465699465, 0.0018934702381620573,
        -0.0007819760519059106, -0.00011971601190061259, 0.00011956246061208128, 2.1399893092081632e-05,
        -4.158967016304951e-06,
    ),
)  # fmt: skip
# erfinv(x) / x by w - centre with w = -log(1 - x^2), then by sqrt(w) - centre
_NEAR_LONG = (
    1.6536545626831027, 0.2401581824255883, -0.00603367087142785, -0.000740702534154477, 0.00018673420802464837,
    -1.3882523394405316e-05, -1.3654691850603575e-06, 4.234788173782339e-07, -2.9070382262927266e-08,
    -4.11266082002324e-09, 1.0512181539804126e-09, -5.414287198084716e-11, -1.2976885526532075e-11,
    2.6304834740560442e-12, -8.118399443074353e-14, -4.001237735091896e-14, 6.596407712420834e-15,
    -4.0282154327661744e-17, -1.3016928016796445e-16, 1.557432024623325e-17, 1.150022252066253e-18,
    -3.4996044354754177e-19, -1.113483769832702e-21, 3.240704459379902e-21,
)  # fmt: skip
_FAR_LONG = (
    3.0838856104922208, 1.0052589676941652, 0.00537091455357168, -0.003751208508215561, 0.0024914420969817607,
    -0.0016882755357337071, 0.0009532893637435638, -0.00035503780975963814, 2.4031257015092525e-05,
    6.828708654753377e-05, -4.731898412011245e-05, 1.2465167157087251e-05, 2.9257291901789823e-06,
    -3.986084395214756e-06, 1.4987130784186127e-06, -2.7004219280868947e-08, -2.713451105439456e-07,
    1.3104351499972014e-07, 6.969241977629694e-10, -1.5102695423335065e-08,
)  # fmt: skip
_FARTHEST_LONG = (
    4.849906401408584, 1.0103004648645455, -0.000138719318373517, -0.00021503011983024694, 7.59952779202494e-05,
    -1.9681770676949253e-05, 4.526054328559671e-06, -9.930294774982885e-07, 2.2904362741369038e-07,
    -6.75560303537366e-08, 2.9044909320789473e-08, -1.525516018129263e-08, 7.777428539826636e-09,
    -3.471437933896719e-09, 1.3589365341577091e-09, -4.3738896637340697e-10, 4.6977303445962895e-11,
    4.2802433037309425e-11, -1.5439278197208357e-11,
)  # fmt: skip
_NEAR_SHORT = (
    1.501409351110792, 0.24664028942745514, -0.004177320040540122, -0.0012527485028416628, 0.00021825772396383332,
    -4.9596917942159365e-06, -3.4234142742220455e-06, 4.6541741050231655e-07, 1.598430613390006e-08,
    -8.739010702830122e-09, 4.671932509038665e-10,
)  # fmt: skip
_FAR_SHORT = (
    2.958320148931118, 1.003718693943863, 0.007048005072652282, -0.005301103431762479, 0.0037926163113786793,
    -0.002518825682916149, 0.0012705409778224154, -0.00033364337405794727, -0.00011397955794918233,
    0.0001474328778069042, -3.1088940336028564e-05, -1.0527834153821763e-05,
)  # fmt: skip
# log(gamma(2 + e)) / e and 1 / gamma(2 + e) for |e| <= 1/2
_LGAMMA = (
    (
        0.42278433509846713, 0.3224670334241132, -0.06735230105319814, 0.02058080842778457, -0.0073855510286681535,
        0.002890510330738737, -0.0011927539120010226, 0.0005096695248853096, -0.00022315475074520367,
        9.945750909889392e-05, -4.4926351103833334e-05, 2.050726741605779e-05, -9.438458716242811e-06,
        4.374374916915131e-06, -2.0449201467015115e-06, 9.578663334114758e-07, -4.303558760359961e-07,
        2.0304806751615227e-07, -1.3412819758517287e-07, 6.379047507619774e-08,
    ),
    (
        0.4227843350997953, 0.3224670334234966, -0.06735230143541507, 0.020580808605237744, -0.007385533261288008,
        0.0028905020821439896, -0.0011930547050406706, 0.0005098091580313527, -0.00022086982602425632,
        9.839697643190869e-05, -5.278721858454867e-05, 2.4154595381278688e-05,
    ),
)  # fmt: skip
_RGAMMA = (
    (
        1.0, -0.42278433509846713, -0.23309373642178705, 0.19109110138769153, -0.024552490005374752,
        -0.017645244550146086, 0.008023273021458766, -0.0008043297755476945, -0.0003608378035444817,
        0.00014559614124980513, -1.7545968270676578e-05, -2.588987414363024e-06, 1.3390150218113123e-06,
        -2.0551047374863304e-07, -1.4258717168188387e-09, 6.365451850342688e-09,
    ),
    (
        0.9999999999681293, -0.42278433510364716, -0.23309373004508702, 0.19109110242330843, -0.02455269448855965,
        -0.01764527762529698, 0.008025573851081715, -0.0008039609352203421, -0.000371464171270397,
        0.0001439263876449906,
    ),
)  # fmt: skip
# for x >= 8: (log gamma(x) - Stirling's first terms) x by 1/x^2, gamma(x) / (x^(x - 1/2) e^-x) by 1/x
_STIRLING = (
    (
        0.08333333333333333, -0.0027777777777776747, 0.0007936507935117282, -0.0005952380234291254,
        0.0008417325268022405, -0.001914965912162907, 0.0062081367662297935, -0.020855820837463117,
    ),
    (
        0.08333333333296741, -0.0027777770275731234, 0.0007934093294071784, -0.0005701470164647203,
    ),
)  # fmt: skip
_FACTOR = (
    (
        2.5066282746310007, 0.2088856895525834, 0.00870357039801424, -0.006721090472528053, -0.000575201353756871,
        0.0019653001291281146, 0.00017463189100487602, -0.0014815054625510974, -0.00016498964745225814,
        0.0023907750690825976, -0.0012302762586093314, -0.0013954121459518274,
    ),
    (
        2.5066282746309243, 0.2088856896124977, 0.008703562702200152, -0.006720718575749341, -0.0005837970559556399,
        0.0020679843387208844, -0.000440970467841132,
    ),
)  # fmt: skip
# for x >= 8, by 1/x^2: what is left of the derivatives of log gamma after the terms that `_asymptotic` names
_DIGAMMA = (
    (
        0.08333333333333333, -0.008333333333331664, 0.003968253965999701, -0.004166665501516725, 0.007575459920369176,
        -0.02105106090804774, 0.08002337465397756, -0.299425370626735,
    ),
    (
        0.08333333333008877, -0.00833332667975135, 0.00396610969887244, -0.003943137111647384,
    ),
)  # fmt: skip
_TRIGAMMA = (
    (
        0.16666666666666666, -0.03333333333330476, 0.023809523770911365, -0.03333331335581846, 0.07575246348177586,
        -0.2523946862734603, 1.1093601965597248, -4.575304142113963,
    ),
    (
        0.16666666663474408, -0.033333267853046085, 0.023788391969434865, -0.03112271912062267,
    ),
)  # fmt: skip
_TETRAGAMMA = (
    (
        0.49999999999999994, -0.16666666666615132, 0.1666666659699264, -0.29999963913588895, 0.8332408223665783,
        -3.2774284683087305, 16.4542263634072, -74.12259415485306,
    ),
    (
        0.49999999965496844, -0.16666595873185527, 0.16643785689667115, -0.2759729945224098,
    ),
)  # fmt: skip

# the positive zero of digamma as a sum of two numbers, and digamma(zero + d) / d for |d| <= 1/4
_ZERO = (1.4616321449683622, 9.549995429965697e-17)
_ROOT = (
    (
        0.9676722454476212, -0.4427631689835921, 0.2584997609556687, -0.16394270544241862, 0.10782405068533324,
        -0.07219956125239833, 0.048804288921354876, -0.03316112699288993, 0.02259760081602993, -0.015424733465408253,
        0.010540399993098224, -0.007205634748695976, 0.004896701614056688, -0.003349222735254419, 0.0025946296942270975,
        -0.0017749988418890284,
    ),
    (
        0.967672245468756, -0.44276316899804086, 0.25849974405766873, -0.16394269389016705, 0.10782620699763833,
        -0.07220103540462583, 0.04870833982303103, -0.03309553208893821, 0.02432570896583957, -0.016606133060589456,
    ),
)  # fmt: skip
# digamma(1 + f) / (1 + f - zero) for 0 <= f <= 1, log(gamma(1 + e)) / e for 0 <= e <= 1/2, and erfinv(x) / x by x^2
# up to 1/4
_DIGAMMA_LOW = (
    1.2503801375034054, -0.8546933606017683, 0.752468272286776, -0.714540711526564, 0.6983634995191561,
    -0.6909819690009981, 0.6874872336670987, -0.685780525399315, 0.6848171436159209, -0.6836547089985048,
    0.6802492594990093, -0.6694978444516394, 0.6414308462385623, -0.5827856789173862, 0.48507284929579964,
    -0.3556978884537855, 0.22058797774723324, -0.1107670847566569, 0.0427830131726811, -0.01183727152744269,
    0.0020774723105506836, -0.00017312261802727394,
)  # fmt: skip
_LGAMMA_ONE = (
    -0.5772156649015329, 0.8224670334241114, -0.40068563438617866, 0.27058080840077436, -0.2073855499361632,
    0.1695571500757378, -0.14404945716269785, 0.12550464913071976, -0.11129269142619333, 0.0998435956128985,
    -0.08976429495525075, 0.07912917581932445, -0.06539820745258526, 0.04709138943135492, -0.02663318495612038,
    0.010153045278653747, -0.0019063835610750456,
)  # fmt: skip
_ERFINV_LOW = (
    0.886226925452758, 0.23201366653465907, 0.1275561753044084, 0.08655212936268364, 0.06495961132717862,
    0.05173148498700453, 0.042832578482160585, 0.036522988083139016, 0.031145242581416724, 0.03159332043375326,
    0.008446011584224939, 0.07345020539520401, -0.07607360776328573, 0.11314166859159029,
)  # fmt: skip
# pi's float64 in two parts of 26 bits, and what is left of pi
_PI_HIGH, _PI_REST, _PI_LOW = 3.1415926814079285, -2.781813535079891e-08, 1.2246467991473532e-16


# --- the error function's relatives -----------------------------------------------------------------------------------
def _erfc(m: Any, x: Any) -> Any:
    short, wide = m.short(x), m.wide(x)
    size = m.minimum(m.abs(wide), 28.0)
    factor = m.polynomial((size - 3.0) / (size + 3.0), _ERFC[short]) / (size + size + 1.0)
    if short:
        tail = m.exp(-(size * size)) * factor
    else:  # the rounding of a square of 700 would be that of hundreds of last places
        scaled = size * (2.0**27 + 1)
        high = scaled - (scaled - size)
        rest = (size - high) * (size + high)
        tail = m.exp(-(high * high)) * (factor - factor * (rest * (1.0 - rest * (0.5 - rest * (1 / 6)))))
        tail = m.where(size < 0.45, 1.0 - m.erf(size), tail)
    return m.narrow(m.where(wide < 0, 2.0 - tail, tail), x)


def _erfinv(m: Any, x: Any) -> Any:
    short, wide = m.short(x), m.wide(x)
    size = m.abs(wide)
    w = -m.log((1.0 - size) * (1.0 + size))
    root = m.sqrt(w)
    if short:
        near, far = m.polynomial(w - 2.5, _NEAR_SHORT), m.polynomial(root - 3.125, _FAR_SHORT)
        ratio = m.where(w < 5.0, near, far)
    else:
        far, farthest = m.polynomial(root - 3.25, _FAR_LONG), m.polynomial(root - 5.0, _FARTHEST_LONG)
        ratio = m.where(w < 6.25, m.polynomial(w - 3.125, _NEAR_LONG), m.where(root < 4.0, far, farthest))
        ratio = m.where(size < 0.5, m.polynomial(size * size, _ERFINV_LOW), ratio)
    return m.narrow(m.where(size == 1, wide * constants.inf, wide * ratio), x)


# --- gamma and its logarithm ------------------------------------------------------------------------------------------
def _near_two(m: Any, size: Any) -> tuple[Any, Any, Any]:
    """For 0 <= x < 8.5 e, p and whether x is large, where gamma(x) is gamma(2 + e) p, or gamma(2 + e) / p if not."""
    near = m.round(size)
    e = size - near
    grown = m.where(near > 2, e + 2.0, 1.0)
    for step in range(3, 8):
        grown = grown * m.where(near > step, e + float(step), 1.0)
    shrunk = m.where(near > 0, size, size * (size + 1.0))
    large = near > 1
    return e, m.where(large, grown, shrunk), large


def _turn(m: Any, x: Any, short: bool) -> tuple[Any, Any]:
    """How far x is from the nearest integer, and the sine of pi x but for the sign."""
    turn = x - m.round(x)
    sine, _, lost = _sine_and_cosine_of_turn(m, turn, short)
    return turn, m.abs(sine + lost)


def _sine_and_cosine_of_turn(m: Any, turn: Any, short: bool) -> tuple[Any, Any, Any]:
    """Of pi times a number of at most 1/2; and, in float64, what the sine lacks as that product was rounded."""
    angle = turn * _PI
    sine, cosine = m.sine_and_cosine(angle)
    if short:
        return sine, cosine, 0.0
    high, low = _halves(turn)
    lost = ((high * _PI_HIGH - angle) + high * _PI_REST + low * _PI_HIGH) + low * _PI_REST + turn * _PI_LOW
    return sine, cosine - lost * sine, lost * cosine


def _halves(x: Any) -> tuple[Any, Any]:
    """x as a sum of two numbers of half its digits (T. J. Dekker, 1971)."""
    scaled = x * (2.0**27 + 1)
    high = scaled - (scaled - x)
    return high, x - high


def _exact_product(a: Any, b: Any) -> tuple[Any, Any]:
    """a * b and what its rounding lost."""
    total = a * b
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    return total, ((a1 * b1 - total) + a1 * b2 + a2 * b1) + a2 * b2


def _lgamma(m: Any, x: Any) -> Any:
    short, wide = m.short(x), m.wide(x)
    size = m.abs(wide)
    e, product, large = _near_two(m, m.minimum(size, 8.0))
    stirling = size >= 8
    inverse = 1.0 / m.maximum(size, 8.0)
    logarithm = m.log(m.where(stirling, size, product))
    series = m.polynomial(inverse * inverse, _STIRLING[short]) * inverse
    far = (size - 0.5) * (logarithm - 1.0) + (series + (constants.log(2 * _PI) - 1) / 2)
    close = e * m.polynomial(e, _LGAMMA[short]) + m.where(large, logarithm, -logarithm)
    if not short:  # where the two parts would cancel each other
        close = m.where((size > 1) & (size < 1.5), e * m.polynomial(e, _LGAMMA_ONE), close)
    value = m.where(stirling, far, close)
    _, sine = _turn(m, wide, short)
    reflected = m.where(sine == 0, constants.inf, constants.log(_PI) - m.log(size * sine) - value)
    value = m.where((wide < 0) & (size > _TINY), reflected, value)
    return m.narrow(m.where(size == constants.inf, size, value), x)


def _gamma(m: Any, x: Any) -> Any:
    short, wide = m.short(x), m.wide(x)
    size = m.abs(wide)
    e, product, large = _near_two(m, m.minimum(size, 8.0))
    reciprocal = m.polynomial(e, _RGAMMA[short])
    close = m.where(large, product, 1.0) / m.where(large, reciprocal, reciprocal * product)
    stirling = size >= 8
    y = m.minimum(m.maximum(size, 8.0), 200.0)  # there it is Inf, and 0 for negative numbers
    if short:
        factor = m.polynomial(1.0 / y, _FACTOR[short])
        half, other = m.exp((y - 0.5) * m.log(y) - y), 1.0
    else:  # (y / e)^(y - 1/2): what y / e loses goes into the factor; by halves where its reciprocal still is a number
        base, less = _exact_product(y, _INVERSE_E[0])
        lacking = (less + y * _INVERSE_E[1]) / base * (y - 0.5)
        tail = m.polynomial(1.0 / y, _FACTOR[short][1:]) / y * _ROOT_OF_INVERSE_E
        tail = tail + (_ROOT_OF_TURN_BY_E[1] + _ROOT_OF_TURN_BY_E[0] * lacking)
        factor = tail + _ROOT_OF_TURN_BY_E[0]
        tail = tail - (factor - _ROOT_OF_TURN_BY_E[0])
        halves = m.where(wide < 0, y, 0.0) > 140
        half = m.pow(base, m.where(halves, y * 0.5 - 0.25, y - 0.5))
        other = m.where(halves, half, 1.0)
    value = m.where(stirling, half * other * factor, close)
    turn = wide - m.round(wide)
    nearest = wide - turn
    sine, _, lost = _sine_and_cosine_of_turn(m, turn, short)
    even = m.floor(nearest * 0.5) * 2.0 == nearest
    if short:
        whole = sine * size * m.where(stirling, other * factor, close)
        reflected = _PI / m.where(even, whole, -whole) / m.where(stirling, half, 1.0)
    else:  # what the roundings of the products lose, together
        part, less = _exact_product(other, factor)
        part, less = m.where(stirling, part, close), m.where(stirling, less + other * tail, 0.0)
        first, rest = _exact_product(sine, size)
        whole, end = _exact_product(first, part)
        rest = end + (first * less + (rest + lost * size) * part)
        quotient = _PI / m.where(even, whole, -whole)
        quotient = quotient + quotient * (_PI_LOW / _PI - rest / whole)
        reflected = quotient / m.where(stirling, half, 1.0)
    reflected = m.where(turn == 0, constants.nan, reflected)
    value = m.where(wide < 0, reflected, value)
    return m.narrow(m.where(size < _TINY, 1.0 / wide, value), x)


# --- the derivatives of log gamma -------------------------------------------------------------------------------------
def _eight_on(m: Any, x: Any, order: int) -> tuple[Any, Any]:
    """x reflected to the right side and moved on by 8 if it is below 8, and the sum of 1 / (x + k)^order over the k
    that were left out."""
    wide = m.wide(x)
    right = m.where(wide < 0, 1.0 - wide, wide)
    base = m.minimum(right, 8.0)
    powers = [_raised(base + float(step) if step else base, order) for step in range(8)]  # 0 + -0 would lose a sign
    if m.short(x):  # as one fraction
        top, below = base * 0.0 + 1.0, powers[0]
        for power in powers[1:]:
            top, below = top * power + below, below * power
        total = top / below
    else:  # the smallest parts first
        pairs = [(a + b) / (a * b) for a, b in zip(powers[1::2], powers[2::2])]
        total = 1.0 / powers[7]
        for part in (*reversed(pairs), 1.0 / powers[0]):
            total = total + part
    return m.where(right < 8, right + 8.0, right), m.where(right < 8, total, 0.0)


def _raised(x: Any, order: int) -> Any:
    power = x
    for _ in range(order - 1):
        power = power * x
    return power


def _digamma_low(m: Any, x: Any) -> Any:
    """For 0 <= x < 8, from x - n in 1 .. 2: near the zero a product, further on only parts of one sign are added."""
    whole = m.floor(x)
    f = x - whole
    value = ((f - (_ZERO[0] - 1.0)) - _ZERO[1]) * m.polynomial(f, _DIGAMMA_LOW)
    total = x * 0.0
    for step in range(1, 7):  # the smallest parts first
        back = m.where(whole > step, x - float(step), 1.0)
        total = total + m.where(whole > step, 1.0 / back, 0.0)
    return m.where(whole < 1, value - 1.0 / x, value + total)


def _digamma(m: Any, x: Any) -> Any:
    short, wide = m.short(x), m.wide(x)
    y, before = _eight_on(m, x, 1)
    inverse = 1.0 / y
    square = inverse * inverse
    value = m.log(y) - (inverse * 0.5 + square * m.polynomial(square, _DIGAMMA[short])) - before
    if short:
        d = (wide - _ZERO[0]) - _ZERO[1]
        value = m.where(m.abs(d) < 0.25, d * m.polynomial(d, _ROOT[short]), value)
    else:
        right = m.where(wide < 0, 1.0 - wide, wide)
        value = m.where(right < 8, _digamma_low(m, m.minimum(right, 8.0)), value)
    turn = wide - m.round(wide)
    sine, cosine, lost = _sine_and_cosine_of_turn(m, turn, short)
    reflected = m.where(turn == 0, constants.nan, value - _PI * cosine / (sine + lost))
    return m.narrow(m.where(wide < 0, reflected, value), x)


def _trigamma(m: Any, x: Any) -> Any:
    short, wide = m.short(x), m.wide(x)
    y, before = _eight_on(m, x, 2)
    inverse = 1.0 / y
    square = inverse * inverse
    value = inverse + square * (0.5 + inverse * m.polynomial(square, _TRIGAMMA[short])) + before
    sine, _, lost = _sine_and_cosine_of_turn(m, wide - m.round(wide), short)
    squared = _PI_SQUARED / (sine * sine)
    if not short:
        more = squared * (2.0 * (lost / m.where(sine == 0, 1.0, sine)))
        squared = m.where(squared == constants.inf, squared, squared - more)
    return m.narrow(m.where(wide < 0, squared - value, value), x)


def _tetragamma(m: Any, x: Any) -> Any:
    short, wide = m.short(x), m.wide(x)
    y, before = _eight_on(m, x, 3)
    inverse = 1.0 / y
    square = inverse * inverse
    value = -(square * (1.0 + inverse * (1.0 + inverse * m.polynomial(square, _TETRAGAMMA[short])))) - before * 2.0
    turn = wide - m.round(wide)
    sine, cosine, lost = _sine_and_cosine_of_turn(m, turn, short)
    ratio = _PI / (sine + lost)
    reflected = value - ratio * ratio * ratio * cosine * 2.0
    return m.narrow(m.where(wide < 0, m.where(turn == 0, constants.nan, reflected), value), x)


def _no_slope(y: Any, x: Any) -> Any:
    raise NotImplementedError(
        f"polygamma: the third derivative of digamma is not implemented; differentiate gamma, gammaln and digamma "
        f"no further than to polygamma(2) ({user_line()})"
    )


# --- the records ------------------------------------------------------------------------------------------------------
erfc = smooth_function(
    "erfc",
    _erfc,
    lambda y, x: exp(-x * x) * (-2 / constants.sqrt(_PI)),
    "1 - erf(x), exact where that is small.",
)
erfinv = smooth_function(
    "erfinv",
    _erfinv,
    lambda y, x: exp(y * y) * (constants.sqrt(_PI) / 2),
    "The number whose erf is x; Inf at 1, NaN beyond.",
    domain=(-0.95, 0.95),
)
_RIGHT = (0.6, 4.0)
gamma: Op = smooth_function(
    "gamma",
    _gamma,
    lambda y, x: y * digamma(x),
    "The gamma function, (x - 1)! for integers; NaN at -1, -2, ...",
    domain=_RIGHT,
)
gammaln: Op = smooth_function(
    "gammaln",
    _lgamma,
    lambda y, x: digamma(x),
    "The logarithm of |gamma(x)|; Inf at 0, -1, -2, ...",
    domain=_RIGHT,
)
digamma: Op = smooth_function(
    "digamma",
    _digamma,
    lambda y, x: trigamma(x),
    "The derivative of gammaln; NaN at -1, -2, ...",
    domain=_RIGHT,
)
trigamma: Op = smooth_function(
    "trigamma",
    _trigamma,
    lambda y, x: tetragamma(x),
    "The second derivative of gammaln; Inf at 0, -1, -2, ...",
    domain=_RIGHT,
    smooth=False,  # the laws ask for one derivative more than there is
)
tetragamma: Op = smooth_function(
    "tetragamma",
    _tetragamma,
    _no_slope,
    "The third derivative of gammaln; its own gradient is an error.",
    domain=_RIGHT,
    smooth=False,
)
_POLYGAMMA = (digamma, trigamma, tetragamma)


def polygamma(order: int, x: Any) -> Any:
    """The derivative of that order of digamma: 0, 1 or 2. Raises: NotImplementedError for others."""
    if order not in (0, 1, 2):
        raise NotImplementedError(f"polygamma: orders 0, 1 and 2 are implemented, got {order!r} ({user_line()})")
    return _POLYGAMMA[order](x)
