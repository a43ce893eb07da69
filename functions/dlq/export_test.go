package dlq

// Build makes the function as it is deployed.
var Build = build
