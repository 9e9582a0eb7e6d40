//! A cluster of three in memory, driven by a seed.

pub mod controller;
pub mod disk;
pub mod world;
