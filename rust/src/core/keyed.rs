//! A table whose keys are small numbers.

use std::ops::{Index, IndexMut};

/// Things by keys that are given out again once they are free.
#[derive(Debug)]
pub struct Keyed<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Keyed<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Keyed<T> {
    pub fn insert(&mut self, item: T) -> usize {
        if let Some(key) = self.free.pop() {
            self.items[key] = Some(item);
            return key;
        }
        self.items.push(Some(item));
        self.items.len() - 1
    }

    pub fn remove(&mut self, key: usize) -> Option<T> {
        let item = self.items[key].take();
        if item.is_some() {
            self.free.push(key);
        }
        item
    }

    /// All keys are below this.
    pub fn keys(&self) -> usize {
        self.items.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().flatten()
    }
}

impl<T> Index<usize> for Keyed<T> {
    type Output = T;

    fn index(&self, key: usize) -> &T {
        self.items[key].as_ref().expect("a key outlived what it named")
    }
}

impl<T> IndexMut<usize> for Keyed<T> {
    fn index_mut(&mut self, key: usize) -> &mut T {
        self.items[key].as_mut().expect("a key outlived what it named")
    }
}
