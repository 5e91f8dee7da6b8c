"""What is installed: its lock files, their audit, and the licences. No part of the product."""
