//! What arrived at a viewer lately.

const BUCKET_US: i64 = 50_000;
const BUCKETS: i64 = 10; // the acknowledged rate is taken over 500 ms
const MIN_SPAN_US: i64 = 150_000;

/// Bytes per arrival time in a sliding window of 500 ms.
#[derive(Debug, Clone, Default)]
pub struct AckedRate {
    bytes: [i64; BUCKETS as usize],
    bucket: i64,
    first: i64,
    last: i64,
    total: i64,
}

fn place(bucket: i64) -> usize {
    bucket.rem_euclid(BUCKETS) as usize
}

impl AckedRate {
    pub fn add(&mut self, arrival_us: i64, size: i64) {
        let bucket = arrival_us.div_euclid(BUCKET_US);
        if self.total == 0 {
            *self = Self { bucket, first: arrival_us, last: arrival_us, ..Self::default() };
        } else if bucket > self.bucket {
            for passed in (self.bucket + 1).max(bucket - BUCKETS + 1)..=bucket {
                self.total -= self.bytes[place(passed)];
                self.bytes[place(passed)] = 0;
            }
            self.bucket = bucket;
        } else if bucket <= self.bucket - BUCKETS {
            return;
        }
        self.bytes[place(bucket)] += size;
        self.total += size;
        self.last = self.last.max(arrival_us);
    }

    /// Bit/s, 0 while less than 150 ms were seen.
    pub fn bitrate(&self) -> i64 {
        let span = self.last - self.first.max((self.bucket - BUCKETS + 1) * BUCKET_US);
        if span >= MIN_SPAN_US { self.total * 8_000_000 / span } else { 0 }
    }
}
