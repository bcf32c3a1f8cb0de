//! A world in a file: regions, links, a timeline, and what is expected of the decisions.
