//! Integration tests, against real servers that the tests start themselves.

#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod broker;
mod demo;
mod doctor;
mod service;
mod shared_store;
mod support;
