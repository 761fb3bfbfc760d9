//! Integer steps that Python's unbounded integers make without thinking.

/// `a * b / divisor`, rounded down, without overflow on the way. `divisor` is positive; the result must fit.
pub fn mul_div(a: i64, b: i64, divisor: i64) -> i64 {
    match a.checked_mul(b) {
        Some(product) => product.div_euclid(divisor),
        None => (i128::from(a) * i128::from(b)).div_euclid(i128::from(divisor)) as i64,
    }
}

#[cfg(test)]
mod tests {
    use super::mul_div;

    #[test]
    fn rounds_down_and_survives_a_wide_product() {
        assert_eq!(mul_div(-1, 1, 1_000_000), -1);
        assert_eq!(mul_div(7, 3, 2), 10);
        assert_eq!(mul_div(i64::MAX, 1_000_000, 1_000_000), i64::MAX);
    }
}
