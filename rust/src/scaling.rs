//! Planes of a picture into cells of another one: copied, halved, or by a filter of 2 or 4 taps.
//!
//! The filter is the triangle of bilinear scaling, as wide as the step between two target samples where that is above
//! 1 (so nothing of the source is left out), in 1/128. Columns first: a line of the source's width is mixed of 2 or 4
//! lines, and eight target samples at a time are shuffled out of it. Steps above 2 do not fit into one load for eight
//! samples and are somebody else's.

#![allow(unsafe_code)] // loads and stores of vectors, from slices whose bounds were checked

use std::array;

/// A longer line of 8-bit samples than any picture has.
const MOST: usize = 1 << 14;
/// Samples that are made at a time.
const GROUP: usize = 8;
/// Bytes of a load.
const LOAD: usize = 16;
const ONE: u16 = 128;

/// For each target sample where its taps begin, and their weights.
struct Filter {
    taps: usize,
    starts: Vec<usize>,
    weights: Vec<[u16; 4]>,
}

impl Filter {
    /// `shift`: where in its space a sample lies, 0.5 for its middle.
    fn new(source: usize, target: usize, shift: f64) -> Self {
        let step = source as f64 / target as f64;
        let reach = step.max(1.0);
        let taps = if reach > 1.0 { 4 } else { 2 };
        let mut made = Self { taps, starts: Vec::new(), weights: Vec::new() };
        for sample in 0..target {
            let centre = (sample as f64 + shift) * step - shift;
            let first = (centre - reach).floor() as i64 + 1;
            let start = first.clamp(0, (source - taps) as i64);
            let mut shares = [0.0; 4];
            for tap in first..first + taps as i64 {
                let share = (1.0 - (tap as f64 - centre).abs() / reach).max(0.0);
                let place = tap.clamp(0, source as i64 - 1) - start; // beyond the edge the last sample goes on
                shares[place.clamp(0, taps as i64 - 1) as usize] += share;
            }
            made.starts.push(start as usize);
            made.weights.push(whole(shares));
        }
        made
    }
}

/// Shares as weights whose sum is `ONE` and of which none is above 127, as vectors take them for signed.
fn whole(shares: [f64; 4]) -> [u16; 4] {
    let sum: f64 = shares.iter().sum();
    let mut weights = shares.map(|share| (share / sum * f64::from(ONE)).round() as u16);
    let most = (0..4).max_by_key(|&tap| weights[tap]).unwrap_or(0);
    weights[most] = ONE + weights[most] - weights.iter().sum::<u16>();
    if weights[most] == ONE {
        weights[most] -= 1;
        weights[if most == 0 { 1 } else { most - 1 }] += 1;
    }
    weights
}

/// Eight target samples: per pair of taps a load from here, which bytes of it, and their weights.
struct Group {
    base: [usize; 2],
    bytes: [[u8; LOAD]; 2],
    weights: [[u8; LOAD]; 2],
}

impl Group {
    fn new(filter: &Filter, first: usize) -> Self {
        let last = filter.starts.len() - 1;
        let samples: [usize; GROUP] = array::from_fn(|index| (first + index).min(last));
        let base = array::from_fn(|pair| filter.starts[samples[0]] + 2 * pair);
        let (mut bytes, mut weights) = ([[0; LOAD]; 2], [[0; LOAD]; 2]);
        for pair in 0..filter.taps / 2 {
            for (index, &sample) in samples.iter().enumerate() {
                let away = filter.starts[sample] + 2 * pair - base[pair];
                for tap in 0..2 {
                    bytes[pair][2 * index + tap] = (away + tap) as u8;
                    weights[pair][2 * index + tap] = filter.weights[sample][2 * pair + tap] as u8;
                }
            }
        }
        Self { base, bytes, weights }
    }
}

enum Way {
    Copy,
    Halve,
    Filter { columns: Vec<Group>, taps: usize, rows: Filter },
}

/// A plane of one size into one of another.
pub struct Plane {
    source: (usize, usize),
    target: (usize, usize),
    way: Way,
}

impl Plane {
    /// Sizes are (width, height). `shift`: where across its space a sample lies, 0.5 for the middle, 0.25 for chroma as
    /// most video has it (ITU-T H.264 E.2.1, type 0). None where this is not for us: steps above 2, sides below 4, and
    /// machines without AVX2, which only copy and halve.
    #[must_use]
    pub fn new(source: (usize, usize), target: (usize, usize), shift: f64) -> Option<Self> {
        let fits = |from, into| (4..=MOST).contains(&from) && (1..=MOST).contains(&into) && from <= 2 * into;
        if !fits(source.0, target.0) || !fits(source.1, target.1) {
            return None;
        }
        let way = match () {
            () if source == target => Way::Copy,
            () if source == (2 * target.0, 2 * target.1) => Way::Halve,
            () if fast() => {
                let columns = Filter::new(source.0, target.0, shift);
                Way::Filter {
                    taps: columns.taps,
                    columns: (0..target.0).step_by(GROUP).map(|first| Group::new(&columns, first)).collect(),
                    rows: Filter::new(source.1, target.1, 0.5),
                }
            }
            () => return None,
        };
        Some(Self { source, target, way })
    }

    /// Scale. `line` is memory to be used again. Panics where a plane is not within its slice: see `holds`.
    pub fn run(&self, from: &[u8], from_stride: usize, into: &mut [u8], into_stride: usize, line: &mut Vec<u8>) {
        let (width, height) = self.target;
        let source = |row: usize| &from[row * from_stride..][..self.source.0];
        for row in 0..height {
            let out = &mut into[row * into_stride..][..width];
            match &self.way {
                Way::Copy => out.copy_from_slice(source(row)),
                Way::Halve => halve(out, source(2 * row), source(2 * row + 1)),
                Way::Filter { columns, taps, rows } => {
                    line.resize(self.source.0 + LOAD, 0);
                    let start = rows.starts[row];
                    let lines = array::from_fn(|tap| source(start + tap.min(rows.taps - 1)));
                    filter(&lines, rows.weights[row], rows.taps, line);
                    spread(columns, *taps, line, out);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn filter(lines: &[&[u8]; 4], weights: [u16; 4], taps: usize, line: &mut [u8]) {
    // SAFETY: `Plane::new` makes no filter where these instructions are missing.
    unsafe {
        if taps == 2 {
            vectors::mix::<2>(&[lines[0], lines[1]], [weights[0], weights[1]], line);
        } else {
            vectors::mix::<4>(lines, weights, line);
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn spread(columns: &[Group], taps: usize, line: &[u8], out: &mut [u8]) {
    // SAFETY: as above.
    unsafe {
        if taps == 2 {
            vectors::spread::<1>(columns, line, out);
        } else {
            vectors::spread::<2>(columns, line, out);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn filter(_: &[&[u8]; 4], _: [u16; 4], _: usize, _: &mut [u8]) {
    unreachable!("no filter is made for this machine")
}

#[cfg(not(target_arch = "x86_64"))]
fn spread(_: &[Group], _: usize, _: &[u8], _: &mut [u8]) {
    unreachable!("no filter is made for this machine")
}

/// Whether `width` x `height` samples lie within a buffer of `length` bytes from `start` on.
#[must_use]
pub fn holds(length: usize, start: usize, stride: usize, width: usize, height: usize) -> bool {
    let last = height.checked_sub(1).and_then(|lines| lines.checked_mul(stride));
    let end = last.and_then(|last| last.checked_add(start)?.checked_add(width));
    width <= stride && end.is_some_and(|end| end <= length)
}

/// Both bytes of each pair as one number, which compilers turn into vectors where pairs of bytes are not.
fn halve(out: &mut [u8], upper: &[u8], lower: &[u8]) {
    let both = |pair: &[u8; 2]| {
        let joined = u16::from_le_bytes(*pair);
        (joined & 0xFF) + (joined >> 8)
    };
    for ((out, upper), lower) in out.iter_mut().zip(upper.as_chunks().0).zip(lower.as_chunks().0) {
        *out = ((both(upper) + both(lower) + 2) >> 2) as u8;
    }
}

#[cfg(target_arch = "x86_64")]
fn fast() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn fast() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
mod vectors {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_add_epi16, _mm_loadu_si128, _mm_maddubs_epi16, _mm_packus_epi16, _mm_set1_epi16,
        _mm_shuffle_epi8, _mm_srai_epi16, _mm_storel_epi64, _mm256_add_epi16, _mm256_loadu_si256, _mm256_maddubs_epi16,
        _mm256_packus_epi16, _mm256_set1_epi16, _mm256_srai_epi16, _mm256_storeu_si256, _mm256_unpackhi_epi8,
        _mm256_unpacklo_epi8,
    };

    use super::{GROUP, Group, LOAD, ONE};

    const WIDE: usize = 32;
    const HALF: i16 = (ONE / 2).cast_signed();

    /// A line of an even number of lines, by weights.
    #[target_feature(enable = "avx2")]
    pub(super) fn mix<const TAPS: usize>(rows: &[&[u8]; TAPS], weights: [u16; TAPS], line: &mut [u8]) {
        let width = rows[0].len();
        let chunks = rows.map(|row| row[..width].as_chunks::<WIDE>());
        // Each pair of bytes, one of each line, times its pair of weights.
        let pairs = weights.map(|weight| weight.cast_signed());
        for (at, out) in line[..width].as_chunks_mut::<WIDE>().0.iter_mut().enumerate() {
            let (mut low, mut high) = (_mm256_set1_epi16(HALF), _mm256_set1_epi16(HALF));
            for tap in (0..TAPS).step_by(2) {
                let both = _mm256_set1_epi16(pairs[tap] | pairs[tap + 1] << 8);
                let (one, other) = (load_wide(&chunks[tap].0[at]), load_wide(&chunks[tap + 1].0[at]));
                low = _mm256_add_epi16(low, _mm256_maddubs_epi16(_mm256_unpacklo_epi8(one, other), both));
                high = _mm256_add_epi16(high, _mm256_maddubs_epi16(_mm256_unpackhi_epi8(one, other), both));
            }
            // Packing undoes the order that unpacking made, as both keep to their half of a vector.
            let narrow = _mm256_packus_epi16(_mm256_srai_epi16::<7>(low), _mm256_srai_epi16::<7>(high));
            // SAFETY: it writes 32 bytes, of any alignment.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), narrow) };
        }
        for at in width / WIDE * WIDE..width {
            let sum: u16 = (0..TAPS).map(|tap| u16::from(rows[tap][at]) * weights[tap]).sum();
            line[at] = ((sum + ONE / 2) / ONE) as u8;
        }
    }

    /// Target samples out of a line that is `LOAD` longer than its source, for `PAIRS` pairs of taps.
    #[target_feature(enable = "avx2")]
    pub(super) fn spread<const PAIRS: usize>(groups: &[Group], line: &[u8], out: &mut [u8]) {
        let (chunks, rest) = out.as_chunks_mut::<GROUP>();
        for (group, chunk) in groups.iter().zip(chunks) {
            *chunk = eight::<PAIRS>(group, line);
        }
        if let Some(group) = groups.last().filter(|_| !rest.is_empty()) {
            rest.copy_from_slice(&eight::<PAIRS>(group, line)[..rest.len()]);
        }
    }

    #[target_feature(enable = "avx2")]
    fn eight<const PAIRS: usize>(group: &Group, line: &[u8]) -> [u8; GROUP] {
        let mut sum = _mm_set1_epi16(HALF);
        for pair in 0..PAIRS {
            let bytes = load(line[group.base[pair]..].first_chunk().expect("a line is longer than its source"));
            let chosen = _mm_shuffle_epi8(bytes, load(&group.bytes[pair]));
            // At most 255 * 128 in all: below what 16 signed bits hold.
            sum = _mm_add_epi16(sum, _mm_maddubs_epi16(chosen, load(&group.weights[pair])));
        }
        let narrow = _mm_packus_epi16(_mm_srai_epi16::<7>(sum), sum);
        let mut made = [0; GROUP];
        // SAFETY: it writes 8 bytes.
        unsafe { _mm_storel_epi64(made.as_mut_ptr().cast(), narrow) };
        made
    }

    #[target_feature(enable = "avx2")]
    fn load_wide(bytes: &[u8; WIDE]) -> __m256i {
        // SAFETY: it reads 32 bytes, of any alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8; LOAD]) -> __m128i {
        // SAFETY: it reads 16 bytes, of any alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests;
