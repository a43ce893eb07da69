// Package check tests the Terraform configuration on a machine without an account and without a registry.
//
// The tests run Terraform itself (validate, plan, apply, destroy, test) with fake providers (package provider), and compare
// the plan with the code: the topology, the configuration types (package parts), the queries and the calls. They also
// build each function from its staged archive as Google's buildpack does, start the function, and push messages to it.
//
// Without Terraform, the tests are skipped.
package check
