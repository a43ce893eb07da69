# The state lives in a bucket of your own, which is named when Terraform is initialised; README.md, step 2, makes it:
#
#   terraform init -backend-config="bucket=PROJECT-terraform" -backend-config="prefix=parley"
terraform {
  backend "gcs" {}
}
