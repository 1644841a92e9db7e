//! Expressions, each through one funnel.
