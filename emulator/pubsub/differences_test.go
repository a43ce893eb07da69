package pubsub_test

// difference is where Google's emulator does not do what the service documents.
type difference struct {
	theirs string // what Google's emulator does
	source string // the documentation that ours follows
}

// differences holds them by the name of the test that shows them.
var differences = map[string]difference{}
