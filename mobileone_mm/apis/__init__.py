"""What the tools call: each tool parses its arguments and calls one function of this room."""
