"""Prior authorization: whether a payer's approval is needed, and everything until it is there or refused for good."""
