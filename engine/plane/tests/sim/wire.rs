//! A wire: loses, repeats and delays what is put on it.

use super::random::Random;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
pub struct Quality {
    /// In a hundred.
    pub loss: usize,
    /// In a hundred.
    pub repeat: usize,
    /// The longest delay, in steps: at least 1. Two frames with different delays change places.
    pub delay_max: u64,
}

/// Frames on their way, by the step at which they arrive.
#[derive(Debug, Default)]
pub struct Wire {
    due: BTreeMap<(u64, u64), Vec<u8>>,
    count: u64,
}

impl Wire {
    pub fn put(&mut self, now: u64, quality: Quality, random: &mut Random, frame: &[u8]) {
        let copies = 1 + usize::from(random.chance(quality.repeat));
        for _ in 0..copies {
            if random.chance(quality.loss) {
                continue;
            }
            let delay =
                1 + u64::try_from(random.below(usize::try_from(quality.delay_max).unwrap()))
                    .unwrap();
            self.count += 1;
            self.due.insert((now + delay, self.count), frame.to_vec());
        }
    }

    /// The next frame that has arrived by `now`.
    pub fn take(&mut self, now: u64) -> Option<Vec<u8>> {
        let first = self.due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }
}
