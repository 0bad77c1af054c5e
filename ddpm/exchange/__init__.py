"""Models to and from the forms of other projects."""
