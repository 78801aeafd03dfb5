//! Manifest documents: what an operator or a plugin author writes about plugins.

pub mod llmproxy;
