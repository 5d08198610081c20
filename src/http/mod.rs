//! Building blocks of both HTTP ports: serving, answers that are problems, health, and the admin router.

pub mod admin;
pub mod api;
pub mod health;
pub(crate) mod orders;
pub mod problem;
pub mod serve;
