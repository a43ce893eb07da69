package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"parley.internal/terraform/check/schema"
)

// provider serves Terraform's plugin protocol from a schema. What it does not implement (functions, ephemeral
// resources, imports), Terraform does not ask of a provider whose schema has none, except on a person's demand.
type provider struct {
	tfprotov5.ProviderServer // nil: the methods that are not implemented

	schema *schema.Provider
	config map[string]string // the provider's own arguments, as far as they are strings, or true

	// compute makes up what the provider would compute: the value of an attribute, "" for none in particular.
	// object is the whole resource.
	compute func(config map[string]string, typeName string, path []string, object map[string]tftypes.Value) string
	// deny says why no resource of a type can be made with the provider's own arguments.
	deny func(config map[string]string, typeName string) error
	// refuse says why a resource can't be deleted.
	refuse func(typeName string, object map[string]tftypes.Value) error
	// read does what a data source does and gives its computed attributes.
	read func(typeName string, object map[string]tftypes.Value) (map[string]any, error)
}

func (p *provider) GetMetadata(context.Context, *tfprotov5.GetMetadataRequest) (*tfprotov5.GetMetadataResponse, error) {
	r := &tfprotov5.GetMetadataResponse{ServerCapabilities: &tfprotov5.ServerCapabilities{}}
	for name := range p.schema.Resources {
		r.Resources = append(r.Resources, tfprotov5.ResourceMetadata{TypeName: name})
	}
	for name := range p.schema.DataSources {
		r.DataSources = append(r.DataSources, tfprotov5.DataSourceMetadata{TypeName: name})
	}
	return r, nil
}

func (p *provider) GetProviderSchema(context.Context, *tfprotov5.GetProviderSchemaRequest) (*tfprotov5.GetProviderSchemaResponse, error) {
	r := &tfprotov5.GetProviderSchemaResponse{
		ServerCapabilities: &tfprotov5.ServerCapabilities{},
		ResourceSchemas:    map[string]*tfprotov5.Schema{}, DataSourceSchemas: map[string]*tfprotov5.Schema{},
	}
	config, err := p.schema.Config.Protocol()
	if err != nil {
		return nil, err
	}
	r.Provider = &tfprotov5.Schema{Block: config}
	for from, to := range map[*map[string]*schema.Block]map[string]*tfprotov5.Schema{
		&p.schema.Resources: r.ResourceSchemas, &p.schema.DataSources: r.DataSourceSchemas,
	} {
		for name, b := range *from {
			block, err := b.Protocol()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			to[name] = &tfprotov5.Schema{Block: block}
		}
	}
	return r, nil
}

func (p *provider) GetResourceIdentitySchemas(context.Context, *tfprotov5.GetResourceIdentitySchemasRequest) (*tfprotov5.GetResourceIdentitySchemasResponse, error) {
	return &tfprotov5.GetResourceIdentitySchemasResponse{}, nil
}

func (p *provider) PrepareProviderConfig(_ context.Context, r *tfprotov5.PrepareProviderConfigRequest) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: r.Config}, nil
}

func (p *provider) ConfigureProvider(_ context.Context, r *tfprotov5.ConfigureProviderRequest) (*tfprotov5.ConfigureProviderResponse, error) {
	object, _, err := decode(p.schema.Config, r.Config)
	if err != nil {
		return nil, err
	}
	p.config = map[string]string{}
	for name, v := range object {
		if s := text(object, name); s != "" {
			p.config[name] = s
		}
		if v.Equal(tftypes.NewValue(tftypes.Bool, true)) {
			p.config[name] = "true"
		}
	}
	return &tfprotov5.ConfigureProviderResponse{}, nil
}

func (p *provider) StopProvider(context.Context, *tfprotov5.StopProviderRequest) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}

func (p *provider) ValidateResourceTypeConfig(_ context.Context, r *tfprotov5.ValidateResourceTypeConfigRequest) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	refused, err := unconfigurable(p.schema.Resources[r.TypeName], r.Config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.TypeName, err)
	}
	return &tfprotov5.ValidateResourceTypeConfigResponse{Diagnostics: refused}, nil
}

func (p *provider) ValidateDataSourceConfig(_ context.Context, r *tfprotov5.ValidateDataSourceConfigRequest) (*tfprotov5.ValidateDataSourceConfigResponse, error) {
	refused, err := unconfigurable(p.schema.DataSources[r.TypeName], r.Config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.TypeName, err)
	}
	return &tfprotov5.ValidateDataSourceConfigResponse{Diagnostics: refused}, nil
}

// unconfigurable finds values for what the provider alone decides. The rest of the schema Terraform checks by itself.
func unconfigurable(b *schema.Block, config *tfprotov5.DynamicValue) ([]*tfprotov5.Diagnostic, error) {
	object, _, err := decode(b, config)
	if err != nil {
		return nil, err
	}
	var refused []*tfprotov5.Diagnostic
	_, err = complete(b, object, nil, func(path []string, _ string, a schema.Attribute, v tftypes.Value, _ tftypes.Type) (tftypes.Value, error) {
		if a.Computed && !a.Optional && !v.IsNull() {
			refused = append(refused, diagnose(fmt.Errorf("can't configure a value for %q: its value will be decided automatically", strings.Join(path, ".")))...)
		}
		return v, nil
	})
	return refused, err
}

func (p *provider) UpgradeResourceState(_ context.Context, r *tfprotov5.UpgradeResourceStateRequest) (*tfprotov5.UpgradeResourceStateResponse, error) {
	t, err := p.schema.Resources[r.TypeName].Type()
	if err != nil {
		return nil, err
	}
	v, err := r.RawState.Unmarshal(t)
	if err != nil {
		return nil, fmt.Errorf("%s: read the state: %w", r.TypeName, err)
	}
	state, err := tfprotov5.NewDynamicValue(t, v)
	if err != nil {
		return nil, err
	}
	return &tfprotov5.UpgradeResourceStateResponse{UpgradedState: &state}, nil
}

func (p *provider) ReadResource(_ context.Context, r *tfprotov5.ReadResourceRequest) (*tfprotov5.ReadResourceResponse, error) {
	return &tfprotov5.ReadResourceResponse{NewState: r.CurrentState, Private: r.Private}, nil
}

func (p *provider) PlanResourceChange(_ context.Context, r *tfprotov5.PlanResourceChangeRequest) (*tfprotov5.PlanResourceChangeResponse, error) {
	b := p.schema.Resources[r.TypeName]
	object, t, err := decode(b, r.ProposedNewState)
	if err != nil {
		return nil, err
	}
	if object == nil { // to be deleted
		return &tfprotov5.PlanResourceChangeResponse{PlannedState: r.ProposedNewState}, nil
	}
	planned, err := complete(b, object, nil, func(path []string, name string, a schema.Attribute, v tftypes.Value, t tftypes.Type) (tftypes.Value, error) {
		if !v.IsNull() || !a.Computed {
			return v, nil
		}
		// the provider's own project and region are known before anything exists
		if s := p.config[name]; len(path) == 1 && (name == "project" || name == "region") && s != "" {
			return tftypes.NewValue(t, s), nil
		}
		return tftypes.NewValue(t, tftypes.UnknownValue), nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.TypeName, err)
	}
	state, err := tfprotov5.NewDynamicValue(t, tftypes.NewValue(t, planned))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.TypeName, err)
	}
	return &tfprotov5.PlanResourceChangeResponse{PlannedState: &state}, nil
}

func (p *provider) ApplyResourceChange(_ context.Context, r *tfprotov5.ApplyResourceChangeRequest) (*tfprotov5.ApplyResourceChangeResponse, error) {
	b := p.schema.Resources[r.TypeName]
	object, t, err := decode(b, r.PlannedState)
	if err != nil {
		return nil, err
	}
	if object == nil { // to be deleted
		prior, _, err := decode(b, r.PriorState)
		if err != nil {
			return nil, err
		}
		if p.refuse != nil {
			if err := p.refuse(r.TypeName, prior); err != nil {
				return &tfprotov5.ApplyResourceChangeResponse{NewState: r.PriorState, Diagnostics: diagnose(err)}, nil
			}
		}
		return &tfprotov5.ApplyResourceChangeResponse{NewState: r.PlannedState}, nil
	}
	if p.deny != nil {
		if err := p.deny(p.config, r.TypeName); err != nil {
			return &tfprotov5.ApplyResourceChangeResponse{NewState: r.PriorState, Diagnostics: diagnose(err)}, nil
		}
	}
	state, err := p.invent(b, t, r.TypeName, object)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.TypeName, err)
	}
	return &tfprotov5.ApplyResourceChangeResponse{NewState: state}, nil
}

func (p *provider) ReadDataSource(_ context.Context, r *tfprotov5.ReadDataSourceRequest) (*tfprotov5.ReadDataSourceResponse, error) {
	b := p.schema.DataSources[r.TypeName]
	object, t, err := decode(b, r.Config)
	if err != nil {
		return nil, err
	}
	if p.read != nil {
		computed, err := p.read(r.TypeName, object)
		if err != nil {
			return &tfprotov5.ReadDataSourceResponse{Diagnostics: diagnose(err)}, nil
		}
		for name, v := range computed {
			object[name] = tftypes.NewValue(t.AttributeTypes[name], v)
		}
	}
	state, err := p.invent(b, t, r.TypeName, object)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.TypeName, err)
	}
	return &tfprotov5.ReadDataSourceResponse{State: state}, nil
}

// invent fills in what the provider would compute.
func (p *provider) invent(b *schema.Block, t tftypes.Object, typeName string, object map[string]tftypes.Value) (*tfprotov5.DynamicValue, error) {
	whole, err := complete(b, object, nil, func(path []string, name string, a schema.Attribute, v tftypes.Value, t tftypes.Type) (tftypes.Value, error) {
		if !a.Computed || v.IsKnown() && !v.IsNull() {
			return v, nil
		}
		switch {
		case t.Is(tftypes.String):
			s := ""
			if p.compute != nil {
				s = p.compute(p.config, typeName, path, object)
			}
			return tftypes.NewValue(t, s), nil
		case t.Is(tftypes.Number):
			return tftypes.NewValue(t, 1), nil
		case t.Is(tftypes.Bool):
			return tftypes.NewValue(t, false), nil
		case t.Is(tftypes.Map{}):
			return tftypes.NewValue(t, map[string]tftypes.Value{}), nil
		default:
			return tftypes.NewValue(t, []tftypes.Value{}), nil
		}
	})
	if err != nil {
		return nil, err
	}
	state, err := tfprotov5.NewDynamicValue(t, tftypes.NewValue(t, whole))
	if err != nil {
		return nil, err
	}
	return &state, nil
}

// complete gives every attribute of a block, and of the blocks in it, to fill, and puts in its place what that gives
// back. path names an attribute from the resource on.
func complete(b *schema.Block, object map[string]tftypes.Value, at []string,
	fill func(path []string, name string, a schema.Attribute, v tftypes.Value, t tftypes.Type) (tftypes.Value, error),
) (map[string]tftypes.Value, error) {
	out := make(map[string]tftypes.Value, len(object))
	for name, v := range object {
		path := append(append([]string(nil), at...), name)
		if a, ok := b.Attributes[name]; ok {
			t, err := a.Type.Value()
			if err != nil {
				return nil, err
			}
			if out[name], err = fill(path, name, a, v, t); err != nil {
				return nil, err
			}
			continue
		}
		n, ok := b.Blocks[name]
		if !ok {
			return nil, fmt.Errorf("%v is not in the schema", path)
		}
		if !v.IsKnown() || v.IsNull() {
			out[name] = v
			continue
		}
		inner, err := n.Block.Type()
		if err != nil {
			return nil, err
		}
		one := func(v tftypes.Value) (tftypes.Value, error) {
			if !v.IsKnown() || v.IsNull() {
				return v, nil
			}
			var o map[string]tftypes.Value
			if err := v.As(&o); err != nil {
				return v, err
			}
			o, err := complete(n.Block, o, path, fill)
			if err != nil {
				return v, err
			}
			return tftypes.NewValue(inner, o), nil
		}
		if n.Nesting == "single" {
			if out[name], err = one(v); err != nil {
				return nil, err
			}
			continue
		}
		var items []tftypes.Value
		if err := v.As(&items); err != nil {
			return nil, err
		}
		for i := range items {
			if items[i], err = one(items[i]); err != nil {
				return nil, err
			}
		}
		out[name] = tftypes.NewValue(v.Type(), items)
	}
	return out, nil
}

// decode reads an object of a block's type; it is nil for null.
func decode(b *schema.Block, d *tfprotov5.DynamicValue) (map[string]tftypes.Value, tftypes.Object, error) {
	if b == nil {
		return nil, tftypes.Object{}, errors.New("no such type")
	}
	t, err := b.Type()
	if err != nil {
		return nil, t, err
	}
	v, err := d.Unmarshal(t)
	if err != nil {
		return nil, t, fmt.Errorf("read a value: %w", err)
	}
	if v.IsNull() {
		return nil, t, nil
	}
	var object map[string]tftypes.Value
	return object, t, v.As(&object)
}

// text is a string attribute's value, "" if it has none.
func text(object map[string]tftypes.Value, name string) string {
	v, ok := object[name]
	if !ok || !v.IsKnown() || v.IsNull() || !v.Type().Is(tftypes.String) {
		return ""
	}
	var s string
	if err := v.As(&s); err != nil {
		return ""
	}
	return s
}

func diagnose(err error) []*tfprotov5.Diagnostic {
	if err == nil {
		return nil
	}
	return []*tfprotov5.Diagnostic{{Severity: tfprotov5.DiagnosticSeverityError, Summary: err.Error()}}
}
