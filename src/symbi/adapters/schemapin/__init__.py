"""Where documents of SchemaPin come from: domains over https, folders, DNS."""
