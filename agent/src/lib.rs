//! Measures the networks around one region and streams what it learned to the aggregators.
