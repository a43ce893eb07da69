package dlq

// Build makes the deployed function.
var Build = build
