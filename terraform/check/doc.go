// Package check proves, on a machine without an account and without a registry, what `terraform apply` would create.
// Its tests run Terraform itself (validate, plan, apply, destroy, test) with stand-ins for the providers (standin,
// schema), and hold what is planned against the code: the topology, the configuration types (parts), the queries, the
// calls. What each function would be built from is unpacked from the archive that Terraform staged, built as Google's
// buildpack builds it, started, and pushed to.
//
// Where Terraform is not installed, the tests are skipped.
package check
