"""Value: an LLVM value with Python's operators, a scalar or a vector, so that one op body can emit either.

The arithmetic of Values may be contracted (a product fused into a sum) and nothing else. `strict` gives a Value whose
arithmetic, and that of everything computed from it, is rounded exactly as written: range reductions and compensated
sums depend on it. Python numbers take the type of the other operand.

Deliberately not here: functions beyond one or two instructions (`vector_math.py`).
"""

from __future__ import annotations

from llvmlite import ir

from gluonish.kernels.scalars import SCALARS, Scalar

Number = bool | int | float
_FLOATS: dict[str, ir.Type] = {"f32": ir.FloatType(), "f64": ir.DoubleType()}
_INFERRED = {"float": "f32", "double": "f64", "i1": "b1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64"}


def llvm_type(code: str) -> ir.Type:
    """The LLVM type of one number in a register."""
    return _FLOATS.get(code) or ir.IntType(SCALARS[code].bits)


def declare(builder: ir.IRBuilder, name: str, result: ir.Type, operands: list[ir.Type]) -> ir.Function:
    """A function that LLVM itself knows, declared once in a module."""
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(result, operands), name)


class Value:
    """A number (or a vector of numbers) in a register: `value` in LLVM, of type `code` ("f32", "i64", "b1", ...)."""

    __slots__ = ("builder", "code", "exact", "value")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, builder: ir.IRBuilder, value: ir.Value, code: str | None = None, exact: bool = False) -> None:
        self.builder = builder
        self.value = value
        self.code = code or _INFERRED[str(element_of(value.type))]
        self.exact = exact

    @property
    def scalar(self) -> Scalar:
        """The type of the number."""
        return SCALARS[self.code]

    @property
    def floating(self) -> bool:
        """Whether it is a float."""
        return self.code in _FLOATS

    def of(self, value: ir.Value, code: str | None = None) -> Value:
        """Another LLVM value made from this one, of the same type unless `code` says otherwise."""
        return Value(self.builder, value, code or self.code, self.exact)

    def constant(self, number: Number) -> Value:
        """A Python number as a Value of this type (every lane of a vector)."""
        if not self.floating and number != int(number):
            raise TypeError(f"the number {number} does not fit the type {self.scalar.name}; cast the operand first")
        number = float(number) if self.floating else int(number) & ((1 << self.scalar.bits) - 1)
        kind = self.value.type
        if isinstance(kind, ir.VectorType):
            return self.of(ir.Constant(kind, [ir.Constant(kind.element, number)] * kind.count))
        return self.of(ir.Constant(kind, number))

    def call(self, name: str, *operands: Value, code: str | None = None) -> Value:
        """An LLVM intrinsic overloaded on this type, such as "llvm.sqrt", applied to this value and `operands`."""
        values = [self.value, *(other.value for other in operands)]
        result = self.value.type
        function = declare(self.builder, f"{name}.{suffix(result)}", result, [v.type for v in values])
        return self.of(self.builder.call(function, values), code)

    def strict(self) -> Value:
        """The same number; what is computed from it is rounded as written."""
        return Value(self.builder, self.value, self.code, True)

    def relaxed(self, like: Value) -> Value:
        """The same number; what is computed from it may be contracted if that was so for `like`."""
        return Value(self.builder, self.value, self.code, like.exact)

    def bits(self) -> Value:
        """The bits of a float as a signed integer of its size."""
        code = "i32" if self.code == "f32" else "i64"
        return self.of(self.builder.bitcast(self.value, like_type(self.value.type, llvm_type(code))), code)

    def from_bits(self) -> Value:
        """The float that has these bits."""
        code = "f32" if self.code == "i32" else "f64"
        return self.of(self.builder.bitcast(self.value, like_type(self.value.type, llvm_type(code))), code)

    # --- operators ---

    def __add__(self, other: Value | Number) -> Value:
        return self._arithmetic("add", other)

    def __radd__(self, other: Number) -> Value:
        return self._lift(other) + self

    def __sub__(self, other: Value | Number) -> Value:
        return self._arithmetic("sub", other)

    def __rsub__(self, other: Number) -> Value:
        return self._lift(other) - self

    def __mul__(self, other: Value | Number) -> Value:
        return self._arithmetic("mul", other)

    def __rmul__(self, other: Number) -> Value:
        return self._lift(other) * self

    def __truediv__(self, other: Value | Number) -> Value:
        if not self.floating:
            raise TypeError(f"division of {self.scalar.name}; cast the operands to a float type first")
        return self._arithmetic("div", other)

    def __rtruediv__(self, other: Number) -> Value:
        return self._lift(other) / self

    def __neg__(self) -> Value:
        if self.floating:
            return self.of(self.builder.fneg(self.value))
        return self.constant(0) - self

    def __lt__(self, other: Value | Number) -> Value:
        return self._compare("<", other)

    def __le__(self, other: Value | Number) -> Value:
        return self._compare("<=", other)

    def __gt__(self, other: Value | Number) -> Value:
        return self._compare(">", other)

    def __ge__(self, other: Value | Number) -> Value:
        return self._compare(">=", other)

    def __eq__(self, other: Value | Number) -> Value:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: Value | Number) -> Value:  # type: ignore[override]
        return self._compare("!=", other)

    def __and__(self, other: Value | Number) -> Value:
        return self._bitwise("and_", other)

    def __or__(self, other: Value | Number) -> Value:
        return self._bitwise("or_", other)

    def __xor__(self, other: Value | Number) -> Value:
        return self._bitwise("xor", other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Value:
        return self._bitwise("xor", -1)

    def __lshift__(self, other: Value | Number) -> Value:
        return self._bitwise("shl", other)

    def __rshift__(self, other: Value | Number) -> Value:
        return self._bitwise("ashr" if self.scalar.kind == "i" else "lshr", other)

    def __bool__(self) -> bool:
        raise TypeError("a kernel value has no truth while it is compiled; use m.where")

    # --- types ---

    def astype(self, code: str) -> Value:
        """Converted as NumPy does; a float without a place in an integer type gives what x86 gives, its minimum."""
        if code == self.code:
            return self
        if code == "b1":
            return self != 0
        if SCALARS[code].kind == "f":
            return self._to_float(code)
        return self._to_integer(code) if self.floating else self._resize(code)

    def _to_float(self, code: str) -> Value:
        kind = like_type(self.value.type, llvm_type(code))
        if self.floating:
            return self.of((self.builder.fpext if code == "f64" else self.builder.fptrunc)(self.value, kind), code)
        signed = self.scalar.kind == "i"
        return self.of((self.builder.sitofp if signed else self.builder.uitofp)(self.value, kind), code)

    def _to_integer(self, code: str) -> Value:
        if code == "u64":
            return self._to_unsigned()
        # through a wider integer, of which the low bits stay, as the C compilers that built NumPy do it
        wide = "i64" if code in ("i64", "u32") else "i32"
        limit = 2.0 ** (SCALARS[wide].bits - 1)
        fits = (self >= -limit) & (self < limit)
        kind = like_type(self.value.type, llvm_type(wide))
        inside = self.builder.select(fits.value, self.value, self.constant(0.0).value)
        converted = self.of(self.builder.fptosi(inside, kind), wide)
        return choose(fits, converted, converted.constant(-int(limit)))._resize(code)

    def _to_unsigned(self) -> Value:
        half = 2.0**63
        low = self._to_integer("i64")
        high = (self - half)._to_integer("i64") ^ -(1 << 63)
        return choose(self >= half, high, low)._resize("u64")

    def _resize(self, code: str) -> Value:
        kind = like_type(self.value.type, llvm_type(code))
        old, new = self.scalar.bits, SCALARS[code].bits
        if old == new:
            return self.of(self.value, code)
        if new < old:
            return self.of(self.builder.trunc(self.value, kind), code)
        signed = self.scalar.kind == "i"
        return self.of((self.builder.sext if signed else self.builder.zext)(self.value, kind), code)

    # --- emission ---

    def _lift(self, other: Value | Number) -> Value:
        if not isinstance(other, Value):
            return self.constant(other)
        if other.code != self.code:
            raise TypeError(f"operands of types {self.scalar.name} and {other.scalar.name}; cast one first")
        return other

    def _arithmetic(self, name: str, other: Value | Number) -> Value:
        other = self._lift(other)
        if self.code == "b1":
            if name == "sub":
                raise TypeError("subtraction of bool; cast the operands first")
            return self | other if name == "add" else self & other  # as NumPy has it
        exact = self.exact or other.exact
        if not self.floating:
            return Value(self.builder, getattr(self.builder, name)(self.value, other.value), self.code, exact)
        flags = () if exact else ("contract",)
        value = getattr(self.builder, f"f{name}")(self.value, other.value, flags=flags)
        value.as_written = True  # no pass of ours may add flags
        return Value(self.builder, value, self.code, exact)

    def _compare(self, operator: str, other: Value | Number) -> Value:
        other = self._lift(other)
        b = self.builder
        if self.floating:
            compare = b.fcmp_unordered if operator == "!=" else b.fcmp_ordered  # NaN differs from everything
        else:
            compare = b.icmp_signed if self.scalar.kind == "i" else b.icmp_unsigned
        return self.of(compare(operator, self.value, other.value), "b1")

    def _bitwise(self, name: str, other: Value | Number) -> Value:
        if self.floating:
            raise TypeError(f"bit operation on {self.scalar.name}")
        other = self._lift(other)
        return self.of(getattr(self.builder, name)(self.value, other.value))


def choose(condition: Value, x: Value, y: Value) -> Value:
    """x where the condition holds, else y."""
    exact = x.exact or y.exact
    return Value(x.builder, x.builder.select(condition.value, x.value, y.value), x.code, exact)


def element_of(kind: ir.Type) -> ir.Type:
    """The type of one lane."""
    return kind.element if isinstance(kind, ir.VectorType) else kind


def like_type(kind: ir.Type, element: ir.Type) -> ir.Type:
    """`element`, in as many lanes as `kind` has."""
    return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


def suffix(kind: ir.Type) -> str:
    """The type in the name of an overloaded intrinsic: f32, v16f32, i64."""
    element = {"float": "f32", "double": "f64"}.get(str(element_of(kind)), str(element_of(kind)))
    return f"v{kind.count}{element}" if isinstance(kind, ir.VectorType) else element
