//! Quantities as Kubernetes writes them (`10Gi`, `1.5G`, `2e9`), as far as sizes need them. Pure.

/// Kubernetes keeps a quantity to a billionth, and rounds up what is finer.
const NANO: u128 = 1_000_000_000;
const NANO_DIGITS: i32 = 9;

/// The suffixes that multiply by powers of two.
const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];
/// The suffixes that multiply by powers of ten.
const DECIMAL: [(&str, i32); 9] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

/// A quantity that is not negative, in billionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(u128);

impl Quantity {
    /// This many bytes.
    pub fn bytes(bytes: u128) -> Quantity {
        Quantity(bytes.saturating_mul(NANO))
    }

    /// The least whole number that is not below it.
    pub fn ceil(self) -> u128 {
        self.0.div_ceil(NANO)
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Reads a quantity: a decimal number with a suffix of Kubernetes' (`Ki` to `Ei`, `n` to `E`) or an exponent.
    ///
    /// # Errors
    /// A sentence, when it is none, or is negative or beyond what can be counted.
    pub fn parse(text: &str) -> Result<Quantity, String> {
        let wrong = || format!("{text:?} is not a quantity such as 10Gi or 500M");
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        if unsigned.starts_with('-') {
            return Err(format!("{text:?} is negative"));
        }
        let end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || fraction.contains('.') {
            return Err(wrong());
        }
        let too_large = || format!("{text:?} is more than can be counted");
        let digits: u128 = digits.parse().map_err(|_| too_large())?;
        let (two, ten) = match scale(suffix) {
            Some(scale) => scale,
            None => return Err(wrong()),
        };
        let places = i32::try_from(fraction.len()).map_err(|_| wrong())?;
        let scaled = digits
            .checked_mul(1 << two)
            .and_then(|value| shift(value, ten + NANO_DIGITS - places));
        scaled.map(Quantity).ok_or_else(too_large)
    }
}

/// The powers of two and ten by which a suffix multiplies.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    if suffix.is_empty() {
        return Some((0, 0));
    }
    if let Some((_, two)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((*two, 0));
    }
    if let Some((_, ten)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((0, *ten));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    // What is so far out is nothing, or too large, in any case.
    let exponent: i32 = exponent.parse().ok()?;
    Some((0, exponent.clamp(-1000, 1000)))
}

/// `value` times a power of ten, rounded up; `None` when it is too large.
fn shift(value: u128, ten: i32) -> Option<u128> {
    let power = 10u128.checked_pow(ten.unsigned_abs());
    match (ten >= 0, power) {
        _ if value == 0 => Some(0),
        (true, power) => value.checked_mul(power?),
        (false, Some(power)) => Some(value.div_ceil(power)),
        (false, None) => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("+1", 1),
            ("10Gi", 10 << 30),
            ("1.5Gi", 3 << 29),
            (".5Ki", 512),
            ("5.", 5),
            ("1Ei", 1 << 60),
            ("500M", 500_000_000),
            ("1k", 1000),
            ("12E", 12_000_000_000_000_000_000),
            ("1e3", 1000),
            ("1E3", 1000),
            ("2.5e2", 250),
            ("1e-1", 1),
            ("1500m", 2),
            ("1n", 1),
            ("0.0000000001", 1),
            ("1e-999999999", 1),
            ("0e9", 0),
        ] {
            assert_eq!(
                Quantity::parse(text).map(Quantity::ceil),
                Ok(bytes),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "",
            ".",
            "Gi",
            "1 Gi",
            "1gi",
            "1K",
            "1GiB",
            "1.2.3",
            "1e",
            "1eE3",
            "0x10",
            "-1",
            "ten",
            "1e30",
            "999999999999999999999999999999999999999999",
        ] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_below_a_byte_still_counts() {
        let parse = |text| Quantity::parse(text).unwrap();
        assert!(parse("1m") > parse("0"));
        assert!(parse("1Gi") > parse("1G"));
        assert_eq!(parse("1024Mi"), Quantity::bytes(1 << 30));
    }
}
