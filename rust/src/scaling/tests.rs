use proptest::prelude::*;

use super::{Filter, ONE, Plane, fast, holds};

/// What the filter says, sample by sample.
fn by_definition(source: (usize, usize), target: (usize, usize), shift: f64, from: &[u8], stride: usize) -> Vec<u8> {
    let (columns, rows) = (Filter::new(source.0, target.0, shift), Filter::new(source.1, target.1, 0.5));
    let mix = |filter: &Filter, sample: usize, of: &dyn Fn(usize) -> u8| {
        let taps = (0..filter.taps)
            .map(|tap| u32::from(filter.weights[sample][tap]) * u32::from(of(filter.starts[sample] + tap)));
        ((taps.sum::<u32>() + u32::from(ONE) / 2) / u32::from(ONE)) as u8
    };
    let mut made = Vec::new();
    for row in 0..target.1 {
        for column in 0..target.0 {
            made.push(mix(&columns, column, &|x| mix(&rows, row, &|y| from[y * stride + x])));
        }
    }
    made
}

fn sides() -> impl Strategy<Value = (usize, usize)> {
    (4usize..90).prop_flat_map(|source| (Just(source), source.div_ceil(2)..120))
}

proptest! {
    #[test]
    fn vectors_do_what_the_filter_says_and_write_nothing_beside(
        (width, wide) in sides(), (height, tall) in sides(), quarter in any::<bool>(),
        beside in 0usize..5, seed in any::<u64>(),
    ) {
        prop_assume!(fast() && !(width == wide && height == tall) && !(width == 2 * wide && height == 2 * tall));
        let (shift, stride, step) = (if quarter { 0.25 } else { 0.5 }, width + beside, wide + beside);
        let mut state = seed | 1;
        let from: Vec<u8> = (0..stride * height).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state & 0x300 == 0 { 255 } else { state as u8 }
        }).collect();
        let plane = Plane::new((width, height), (wide, tall), shift).expect("a step of at most 2");
        let mut into = vec![7; step * tall];
        plane.run(&from, stride, &mut into, step, &mut Vec::new());
        let wanted = by_definition((width, height), (wide, tall), shift, &from, stride);
        for row in 0..tall {
            prop_assert_eq!(&into[row * step..][..wide], &wanted[row * wide..][..wide]);
            prop_assert!(into[row * step + wide..(row + 1) * step].iter().all(|&byte| byte == 7));
        }
    }

    #[test]
    fn weights_are_whole_and_lie_within(source in 4usize..2000, share in 0.5f64..4.0, quarter in any::<bool>()) {
        let target = (source as f64 * share).ceil() as usize;
        let filter = Filter::new(source, target, if quarter { 0.25 } else { 0.5 });
        for (start, weights) in filter.starts.iter().zip(&filter.weights) {
            prop_assert_eq!(weights.iter().sum::<u16>(), ONE);
            prop_assert!(weights.iter().all(|&weight| weight < ONE));
            prop_assert!(weights[filter.taps..].iter().all(|&weight| weight == 0));
            prop_assert!(start + filter.taps <= source);
        }
    }
}

#[test]
fn a_flat_plane_stays_flat_and_a_ramp_a_ramp() {
    if !fast() {
        return;
    }
    let run = |from: &[u8], plane: &Plane, size: usize| {
        let mut into = vec![0; size];
        plane.run(from, 96, &mut into, 64, &mut Vec::new());
        into
    };
    let plane = Plane::new((96, 96), (64, 64), 0.5).expect("a step of 1.5");
    assert!(run(&[255; 96 * 96], &plane, 64 * 64).iter().all(|&byte| byte == 255));
    let ramp: Vec<u8> = (0..96 * 96).map(|at| (at % 96 * 2) as u8).collect();
    let made = run(&ramp, &plane, 64 * 64);
    for (column, &found) in made.iter().enumerate().take(62).skip(2) {
        let wanted = (column as f64 + 0.5) * 3.0 - 1.0;
        assert!((f64::from(found) - wanted).abs() <= 1.0, "{column}: {found} and not {wanted}");
    }
}

#[test]
fn copies_are_the_same_and_halves_are_means() {
    let from: Vec<u8> = (0..16).map(|at| at * 16).collect();
    let mut into = vec![0; 16];
    Plane::new((4, 4), (4, 4), 0.5).expect("a copy").run(&from, 4, &mut into, 4, &mut Vec::new());
    assert_eq!(into, from);
    Plane::new((4, 4), (2, 2), 0.5).expect("a half").run(&from, 4, &mut into, 2, &mut Vec::new());
    assert_eq!(into[..4], [40, 72, 168, 200]);
}

#[test]
fn what_is_not_for_us_is_refused() {
    for (source, target) in
        [((9, 9), (4, 9)), ((9, 9), (9, 4)), ((3, 8), (8, 8)), ((8, 8), (0, 8)), ((1 << 15, 8), (1 << 15, 8))]
    {
        assert!(Plane::new(source, target, 0.5).is_none(), "{source:?} to {target:?}");
    }
    assert!(holds(20, 0, 5, 5, 4) && holds(19, 0, 5, 4, 4));
    assert!(!holds(20, 1, 5, 5, 4) && !holds(20, 0, 4, 5, 4) && !holds(usize::MAX, 2, usize::MAX, 1, 3));
    assert!(!holds(20, 0, 5, 5, 0));
}
