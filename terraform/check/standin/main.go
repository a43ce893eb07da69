// Command standin is a Terraform provider that stands in for Google's, or for the archive provider, on a machine that
// has neither a registry nor an account. It has their schema (package schema), so Terraform itself finds a wrong
// argument, a missing one, a wrong type or a reference to nothing, as it would with the real one. A plan leaves
// unknown what the provider would compute; an apply makes it up, in Google's forms, and creates nothing. The archive
// provider's archives are really written.
//
// Which of the two it is says the name that it is run by, because Terraform finds a provider by its file's name:
// terraform-provider-google or terraform-provider-archive.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"

	"parley.internal/terraform/check/schema"
)

func main() {
	if err := run(filepath.Base(os.Args[0])); err != nil {
		log.Fatalln("standin:", err)
	}
}

func run(program string) error {
	name, _ := strings.CutPrefix(program, "terraform-provider-")
	p := &provider{}
	var err error
	switch name {
	case "google":
		p.schema, err = schema.Google()
		p.compute, p.deny, p.refuse = computeGoogle, denyGoogle, refuseGoogle
	case "archive":
		p.schema, err = schema.Archive()
		p.read = zipFile
	default:
		err = fmt.Errorf("run by the name %q; want terraform-provider-google or terraform-provider-archive", program)
	}
	if err != nil {
		return err
	}
	return tf5server.Serve("hashicorp/"+name, func() tfprotov5.ProviderServer { return p })
}
