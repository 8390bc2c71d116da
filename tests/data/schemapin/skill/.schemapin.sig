{
  "schemapin_version": "1.3",
  "skill_name": "sender",
  "skill_hash": "sha256:9ba60a8ba229f383c29cbe3ab94b62ffeb179777ebe8ec655e7fe783f532821b",
  "signature": "MEYCIQD0SbBaEM+UjlMNCwplpiLpZ5YhXxosDIFXdDj8XzZ7zQIhAJ7MgFEErJ82ykv6k7olbLYt11pT+yBsnWBUT5/cc++t",
  "signed_at": "2026-11-26T08:00:03.357374+00:00",
  "domain": "tools.example.com",
  "signer_kid": "sha256:3a09821bc33fd265221cd37acd364731f828f2ba904a7903d50612c630184f97",
  "file_manifest": {
    "SKILL.md": "sha256:c79902a766b9738addef8a8d8585261147ca967a4339dbed3e6dad245a886aec",
    "examples/usage.txt": "sha256:f1e33f6aea98398f9eb2a4899aa9f36c00dab1884e4e36c73e60f095082768e3"
  }
}
